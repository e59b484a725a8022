"""The manifests: they fit Kubernetes' own schemas, and what they start and ask exists."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.deploy.parts import IMAGE, ROOT, Dockerfile, assert_command, assert_settings, settings

FOLDER = ROOT / "deploy/kubernetes"
FILES = sorted(path for path in FOLDER.glob("*.yaml") if path.name != "kustomization.yaml")
VERSIONS = ("1.31", "1.34", kubernetes_validate.latest_version())
PROBES = {"startupProbe": "/startupz", "readinessProbe": "/readyz", "livenessProbe": "/healthz"}
SERVICES = {
    "job-service": ("JOB_SERVICE_GRPC_PORT", "JOB_SERVICE_HTTP_PORT"),
    "scheduler-service": ("SCHEDULER_SERVICE_GRPC_PORT", "SCHEDULER_SERVICE_HTTP_PORT"),
    "execution-service": ("EXECUTION_SERVICE_PORT", "EXECUTION_SERVICE_HTTP_PORT"),
}

Manifest = dict[str, Any]


def documents(path: Path) -> list[Manifest]:
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


ALL = [(path, each) for path in FILES for each in documents(path)]


def of_kind(kind: str) -> list[Manifest]:
    return [each for _, each in ALL if each["kind"] == kind]


def pods() -> list[Manifest]:
    return [each["spec"]["template"] for each in [*of_kind("Deployment"), *of_kind("Job")]]


def containers() -> list[Manifest]:
    found = [container for pod in pods() for container in pod["spec"]["containers"]]
    assert len(found) == 4
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_they_fit_the_schemas(version: str) -> None:
    for path, each in ALL:
        try:
            kubernetes_validate.validate(each, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            pytest.fail(f"{path.name}: {error.message} at {list(error.path)}")


def test_the_schemas_see_a_slip() -> None:
    deployment = of_kind("Deployment")[0]
    wrong = {**deployment, "spec": {**deployment["spec"], "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_the_kustomization_names_all_but_the_migrations() -> None:
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    assert set(kustomization["resources"]) == {path.name for path in FILES} - {"migrations.yaml"}


def test_names_and_references() -> None:
    names = [(each["kind"], each["metadata"]["name"]) for _, each in ALL]
    assert len(set(names)) == len(names)
    for pod in pods():
        assert ("ServiceAccount", pod["spec"]["serviceAccountName"]) in names
        for container in pod["spec"]["containers"]:
            for source in container["envFrom"]:
                if "configMapRef" in source:
                    assert ("ConfigMap", source["configMapRef"]["name"]) in names
                else:
                    assert source["secretRef"]["name"] in (FOLDER / "config.yaml").read_text()
            mounts = {mount["name"] for mount in container["volumeMounts"]}
            assert mounts == {volume["name"] for volume in pod["spec"]["volumes"]}


def test_each_service_has_a_service_and_a_budget_of_its_own() -> None:
    for deployment in of_kind("Deployment"):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"] == labels
        [service] = [each for each in of_kind("Service") if each["spec"]["selector"] == labels]
        [budget] = [
            each for each in of_kind("PodDisruptionBudget") if each["spec"]["selector"]["matchLabels"] == labels
        ]
        assert deployment["spec"]["replicas"] > budget["spec"]["maxUnavailable"]
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert {port["targetPort"]: port["port"] for port in service["spec"]["ports"]} == ports
        defaults = settings()
        wanted = [defaults[name] for name in SERVICES[container["name"]]]
        assert [str(ports["grpc"]), str(ports["http"])] == wanted


def test_commands_and_settings_are_ours() -> None:
    [configured] = of_kind("ConfigMap")
    assert_settings(configured["data"])
    for container in containers():
        assert container["image"] == IMAGE
        assert_command(container["args"])
        for variable in container.get("env", []):
            assert variable["name"] in settings()
            if "value" in variable:
                assert_settings({variable["name"]: variable["value"]})


def test_no_service_variable_of_kubernetes_comes_in_the_way() -> None:
    """A Service `execution-service` would set EXECUTION_SERVICE_PORT=tcp://... in each Pod."""
    assert all(pod["spec"]["enableServiceLinks"] is False for pod in pods())
    for service in of_kind("Service"):
        prefix = service["metadata"]["name"].upper().replace("-", "_")
        assert not [name for name in settings() if name.startswith(prefix)]


def test_pods_may_do_little() -> None:
    uid = int(Dockerfile().all("USER")[-1].split(":")[0])
    for pod in pods():
        of_pod = pod["spec"]["securityContext"]
        assert (of_pod["runAsNonRoot"], of_pod["runAsUser"]) == (True, uid)
        assert pod["spec"]["automountServiceAccountToken"] is False
        for container in pod["spec"]["containers"]:
            of_container = container["securityContext"]
            assert of_container["readOnlyRootFilesystem"]
            assert not of_container["allowPrivilegeEscalation"]
            assert of_container["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"]
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])


def test_a_service_may_take_its_time_to_start_and_not_to_answer() -> None:
    for deployment in of_kind("Deployment"):
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        assert {name: container[name]["httpGet"]["path"] for name in PROBES} == PROBES
        assert {container[name]["httpGet"]["port"] for name in PROBES} == {"http"}
        seconds = [container[name]["periodSeconds"] * container[name]["failureThreshold"] for name in PROBES]
        assert seconds[0] >= 300
        assert all(a > b for a, b in pairwise([seconds[0], seconds[2], seconds[1]]))
