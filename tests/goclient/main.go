// goclient is a client as others wrote them for the original system: made from our protos alone, it runs the five commands of the
// original's guide, each as that client sent it.
//
//	goclient ADDRESS create NAME DESCRIPTION CRON KEY VALUE
//	goclient ADDRESS get ID
//	goclient ADDRESS list PAGE_SIZE STATUS LAST_ID
//	goclient ADDRESS update ID NAME STATUS
//	goclient ADDRESS delete ID
//
// What comes back is printed as one line of JSON, an error as its code and message with exit code 1.
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	job "dts.local/goclient/gen/job/v1"
)

const timeout = 20 * time.Second

// statusOf is the enum value of a name in any case; names that are none are sent as unset, as the original's client did.
func statusOf(name string) job.JobStatus {
	for _, form := range []string{name, "JOB_STATUS_" + name} {
		if value, ok := job.JobStatus_value[strings.ToUpper(form)]; ok {
			return job.JobStatus(value)
		}
	}
	return job.JobStatus(0)
}

func call(ctx context.Context, client job.JobServiceClient, arguments []string) (proto.Message, error) {
	rest := arguments[1:]
	switch arguments[0] {
	case "create":
		return client.CreateJob(ctx, &job.CreateJobRequest{
			Name: rest[0], Description: rest[1], CronExpression: rest[2], Metadata: map[string]string{rest[3]: rest[4]},
		})
	case "get":
		return client.GetJob(ctx, &job.GetJobRequest{Id: rest[0]})
	case "list":
		size, err := strconv.ParseInt(rest[0], 10, 32)
		if err != nil {
			return nil, err
		}
		return client.ListJobs(ctx, &job.ListJobsRequest{PageSize: int32(size), Status: rest[1], LastId: rest[2]})
	case "update":
		// Every field is sent; the untouched ones are empty.
		return client.UpdateJob(ctx, &job.UpdateJobRequest{
			Id: rest[0], Name: rest[1], Description: "", CronExpression: "", Status: statusOf(rest[2]),
			Metadata: map[string]string{}, Priority: 0, MaxRetries: 0, Timeout: 0,
		})
	case "delete":
		return client.DeleteJob(ctx, &job.DeleteJobRequest{Id: rest[0]})
	}
	return nil, fmt.Errorf("no command %q", arguments[0])
}

func run(address string, arguments []string) error {
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	answer, err := call(ctx, job.NewJobServiceClient(connection), arguments)
	if err != nil {
		return err
	}
	line, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(answer)
	if err != nil {
		return err
	}
	fmt.Println(string(line))
	return nil
}

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %s\n", status.Code(err), status.Convert(err).Message())
		os.Exit(1)
	}
}
