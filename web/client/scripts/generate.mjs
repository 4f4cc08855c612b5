// Types of the routes that the client uses, from the OpenAPI document of a running server:
//   node scripts/generate.mjs http://127.0.0.1:8080 > src/openapi.d.ts
import openapiTS, { astToString } from "openapi-typescript";

const ROUTES = ["/v1/embeddings", "/v1/models", "/v1/rerank", "/v1/chat/completions", "/huggingface/embedding", "/huggingface/status"];

const answer = await fetch(`${process.argv[2]}/openapi.json`);
const document = await answer.json();
document.paths = Object.fromEntries(ROUTES.map((path) => [path, document.paths[path]]));
const wanted = new Set();
const visit = (value) => {
  if (value === null || typeof value !== "object") return;
  const [, kind, name] = /^#\/components\/(\w+)\/(.+)$/.exec(value.$ref ?? "") ?? [];
  if (name && !wanted.has(`${kind}/${name}`)) {
    wanted.add(`${kind}/${name}`);
    visit(document.components[kind][name]);
  }
  Object.values(value).forEach(visit);
};
visit(document.paths);
for (const [kind, parts] of Object.entries(document.components)) {
  document.components[kind] = Object.fromEntries(Object.entries(parts).filter(([name]) => wanted.has(`${kind}/${name}`)));
}
process.stdout.write("// Generated from the server's OpenAPI document by scripts/generate.mjs; do not edit.\n\n");
process.stdout.write(astToString(await openapiTS(document, { defaultNonNullable: false })));
