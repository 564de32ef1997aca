"use strict";
// Shows /openapi.json. Everything goes into the page as text, never as markup.

const METHODS = ["get", "post", "put", "patch", "delete"];

/** An element with these properties and children. */
function make(name, properties, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** What a reference points at. */
function resolve(api, node) {
  if (!node || !node.$ref) return node;
  return node.$ref.split("/").slice(1).reduce((at, part) => at && at[part], api);
}

/** A schema in a few words. */
function words(schema) {
  if (schema === true || !schema) return "any";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.enum) return schema.enum.join(" | ");
  if (schema.const !== undefined) return String(schema.const);
  const parts = schema.oneOf || schema.anyOf;
  if (parts) return parts.map(words).join(" | ");
  if (schema.type === "array") return words(schema.items) + ", ...";
  const type = [].concat(schema.type || "any").join(" | ");
  return schema.format ? `${type} (${schema.format})` : type;
}

function table(heads, rows) {
  if (rows.length === 0) return null;
  const head = make("tr", {}, ...heads.map((text) => make("th", {}, text)));
  const body = rows.map((row) => make("tr", {}, ...row.map((cell) => make("td", {}, cell))));
  return make("table", {}, make("thead", {}, head), make("tbody", {}, ...body));
}

function code(text) {
  return make("code", {}, text);
}

function parametersOf(operation) {
  const rows = (operation.parameters || []).map((parameter) => [
    code(parameter.name + (parameter.required ? " *" : "")),
    words(parameter.schema),
    parameter.description || "",
  ]);
  const content = operation.requestBody && operation.requestBody.content["application/json"];
  const members = content ? Object.entries(content.schema.properties || {}) : [];
  members.forEach(([name, schema]) =>
    rows.push([code(name), words(schema), `In the JSON body. ${schema.description || ""}`]));
  return table(["parameter", "value", "meaning"], rows);
}

function responsesOf(api, operation) {
  const rows = Object.entries(operation.responses).map(([status, node]) => {
    const response = resolve(api, node);
    const kinds = Object.entries(response.content || {});
    const forms = kinds.map(([kind, media]) => `${kind}: ${words(media.schema)}`);
    return [code(status), response.description || "", forms.join("; ")];
  });
  return table(["status", "meaning", "form"], rows);
}

function show(api, path, method, operation) {
  return make("article", { id: operation.operationId },
    make("h3", {}, make("span", { className: "method" }, method), path),
    make("p", {}, operation.summary || ""),
    parametersOf(operation),
    responsesOf(api, operation));
}

function showSchema(name, schema) {
  const members = Object.entries(schema.properties || {}).map(([member, of]) =>
    [code(member), words(of), of.description || ""]);
  const values = (schema.oneOf || []).filter((of) => of.const !== undefined || of.enum)
    .map((of) => [code(words(of)), "", of.description || ""]);
  return make("article", { id: `schema-${name}` },
    make("h3", {}, name),
    make("p", {}, schema.description || ""),
    table(["member", "value", "meaning"], members.concat(values)));
}

/** Hides what has none of these words in it. */
function filterBy(text) {
  const wanted = text.toLowerCase().split(/\s+/).filter(Boolean);
  document.querySelectorAll("article").forEach((article) => {
    const has = article.textContent.toLowerCase();
    article.hidden = !wanted.every((word) => has.includes(word));
  });
}

async function start() {
  const main = document.getElementById("operations");
  try {
    const answer = await fetch("/openapi.json");
    if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
    const api = await answer.json();
    document.getElementById("version").textContent = api.info.version;
    document.getElementById("about").textContent = api.info.description || "";
    const index = document.createElement("ul");
    for (const tag of api.tags || []) {
      main.append(make("h2", {}, `${tag.name}: ${tag.description || ""}`));
      for (const [path, methods] of Object.entries(api.paths)) {
        for (const method of METHODS.filter((method) => methods[method])) {
          const operation = methods[method];
          if (!operation.tags.includes(tag.name)) continue;
          main.append(show(api, path, method, operation));
          const link = make("a", { href: `#${operation.operationId}` }, `${method} ${path}`);
          index.append(make("li", {}, link));
        }
      }
    }
    main.append(make("h2", {}, "Forms of the answers"));
    const schemas = Object.entries(api.components.schemas);
    schemas.sort(([a], [b]) => a.localeCompare(b));
    main.append(...schemas.map(([name, schema]) => showSchema(name, schema)));
    document.getElementById("index").append(index);
    const filter = document.getElementById("filter");
    filter.addEventListener("input", () => filterBy(filter.value));
  } catch (error) {
    const text = `The description of the API could not be read: ${error.message}`;
    main.append(make("p", { className: "error" }, text));
  }
}

start();
