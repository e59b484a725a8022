"""The page that shows /openapi.json to people: self-contained, no script from elsewhere."""

DOCS = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>DTS API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
summary { cursor: pointer; padding: .35rem 0; }
code, pre { font: 13px/1.45 ui-monospace, monospace; }
pre { overflow: auto; padding: .75rem; border: 1px solid #8885; border-radius: 6px; }
.verb { display: inline-block; width: 4.5rem; font-weight: 600; }
table { border-collapse: collapse; } td, th { text-align: left; padding: .15rem .75rem .15rem 0; vertical-align: top; }
h2 { border-bottom: 1px solid #8885; margin-top: 2.5rem; }
</style></head><body>
<h1>DTS API</h1>
<p id="about">Loading <a href="openapi.json">openapi.json</a> ...</p>
<main></main>
<script>
const make = (name, text, ...children) => {
  const node = document.createElement(name);
  if (text) node.textContent = text;
  node.append(...children);
  return node;
};
const short = schema => !schema ? "" : schema.$ref ? schema.$ref.split("/").pop()
  : schema.anyOf ? short(schema.anyOf.find(each => each.$ref) || schema.anyOf[0])
  : schema.type === "array" ? short(schema.items) + "[]"
  : schema.additionalProperties ? "map of " + short(schema.additionalProperties)
  : schema.enum ? schema.enum.filter(each => typeof each === "string").join(" | ")
  : [].concat(schema.type || "any").join("|") + (schema.format ? " (" + schema.format + ")" : "");
const cell = content => typeof content === "string" ? make("td", content) : make("td", "", content);
const table = rows => make("table", "", ...rows.map(row => make("tr", "", ...row.map(cell))));
const properties = (api, schema) => {
  const found = schema && schema.$ref ? api.components.schemas[schema.$ref.split("/").pop()] : schema;
  return Object.entries((found || {}).properties || {}).map(([name, field]) => [name, link(api, short(field)), field.description || ""]);
};
const link = (api, kind) => {
  const name = kind.replace("[]", "");
  if (!api.components.schemas[name]) return make("span", kind);
  const found = make("a", kind);
  found.href = "#" + name;
  return found;
};
fetch("openapi.json").then(answer => answer.json()).then(api => {
  document.getElementById("about").textContent = api.info.description;
  const main = document.querySelector("main"), tags = {};
  for (const [path, verbs] of Object.entries(api.paths)) for (const [verb, operation] of Object.entries(verbs)) {
    const tag = (operation.tags || ["Server"])[0];
    if (!tags[tag]) { tags[tag] = make("section", "", make("h2", tag)); main.append(tags[tag]); }
    const head = make("summary", "", make("span", verb.toUpperCase()), make("code", path), make("span", "  " + (operation.summary || "")));
    head.firstChild.className = "verb";
    const body = operation.requestBody && operation.requestBody.content["application/json"].schema;
    const good = operation.responses["200"] || {}, answer = good.content && Object.values(good.content)[0].schema;
    const parts = [make("p", operation.description || "")];
    const parameters = (operation.parameters || []).map(each => [each.name, each.in, short(each.schema), each.description || ""]);
    if (parameters.length) parts.push(make("h4", "Parameters"), table(parameters));
    if (body) parts.push(make("h4", "Body: " + short(body)), make("p", operation.requestBody.description || ""),
      table(properties(api, body)));
    if (answer) parts.push(make("h4", "Answer: " + short(answer)), table(properties(api, answer)));
    tags[tag].append(make("details", "", head, ...parts));
  }
  main.append(make("h2", "Messages"));
  for (const [name, schema] of Object.entries(api.components.schemas)) {
    const details = make("details", "", make("summary", "", make("code", name), make("span", "  " + (schema.description || ""))),
      table(properties(api, schema)));
    details.id = name;
    main.append(details);
  }
  addEventListener("hashchange", () => {
    const target = document.getElementById(location.hash.slice(1));
    if (target) { target.open = true; target.scrollIntoView(); }
  });
});
</script></body></html>
"""
