import { ROOT } from "../api";
import { usd } from "../format";
import { bodyOf, type Conversation, type Message } from "./types";

/** A conversation as a text for people, or as code that goes on with it. */
export const FORMS = {
  markdown: { title: "Markdown", file: "md", make: markdown },
  python: { title: "Python", file: "py", make: python },
  typescript: { title: "TypeScript", file: "ts", make: typescript },
  curl: { title: "curl", file: "sh", make: curl },
} as const;

export type Form = keyof typeof FORMS;

function markdown(conversation: Conversation): string {
  const parts = [`# ${conversation.title || "Conversation"}`, `Model: ${conversation.model}`];
  if (conversation.system.trim() !== "") parts.push(`## System\n\n${conversation.system.trim()}`);
  for (const message of conversation.messages) parts.push(written(message));
  return `${parts.join("\n\n")}\n`;
}

const NAMES = { user: "You", assistant: "Answer", tool: "Tool result" };

function written(message: Message): string {
  const parts = [`## ${NAMES[message.role]}`];
  if (message.reasoning) parts.push(`<details><summary>Reasoning</summary>\n\n${message.reasoning.trim()}\n\n</details>`);
  if (message.content.trim() !== "") parts.push(message.role === "tool" ? fenced(message.content) : message.content.trim());
  for (const call of message.toolCalls ?? []) parts.push(`Calls \`${call.name}\`:\n\n${fenced(call.arguments, "json")}`);
  if (message.images?.length) parts.push(`(${message.images.length} ${message.images.length === 1 ? "picture" : "pictures"})`);
  if (message.error !== undefined) parts.push(`*${message.error.title}: ${message.error.message}*`);
  if (message.facts?.servedBy) parts.push(`*${message.facts.servedBy}, ${usd(message.facts.costUsd)}*`);
  return parts.join("\n\n");
}

function fenced(text: string, language = ""): string {
  // A fence longer than any in the text.
  const longest = Math.max(2, ...[...text.matchAll(/`+/g)].map((found) => found[0].length));
  const fence = "`".repeat(longest + 1);
  return `${fence}${language}\n${text.trim()}\n${fence}`;
}

/** Return the request that asks for the last answer again. */
function request(conversation: Conversation): Record<string, unknown> {
  const last = conversation.messages.findLastIndex((message) => message.role !== "assistant");
  return bodyOf(conversation, conversation.messages.slice(0, last + 1));
}

const BASE = new URL("v1", ROOT).href;

function python(conversation: Conversation): string {
  const lines = Object.entries(request(conversation)).map(([name, value]) => `    ${name}=${pythonic(value, 4)},`);
  return `# pip install openai; HF_GATEWAY_KEY is your key for this server, where it needs one.
import os

from openai import OpenAI

client = OpenAI(base_url=${JSON.stringify(BASE)}, api_key=os.environ.get("HF_GATEWAY_KEY", "none"))
stream = client.chat.completions.create(
${lines.join("\n")}
    stream=True,
)
for chunk in stream:
    if chunk.choices and chunk.choices[0].delta.content:
        print(chunk.choices[0].delta.content, end="", flush=True)
print()
`;
}

/** Return a value as Python writes it. */
function pythonic(value: unknown, indent: number): string {
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  // JSON's escapes are Python's, too.
  if (typeof value !== "object") return JSON.stringify(value);
  const pad = " ".repeat(indent + 4);
  const inner = Array.isArray(value)
    ? value.map((each) => `${pad}${pythonic(each, indent + 4)},`)
    : Object.entries(value).map(([name, each]) => `${pad}${JSON.stringify(name)}: ${pythonic(each, indent + 4)},`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  return inner.length === 0 ? `${open}${close}` : `${open}\n${inner.join("\n")}\n${" ".repeat(indent)}${close}`;
}

function typescript(conversation: Conversation): string {
  const body = JSON.stringify({ ...request(conversation), stream: true }, null, 2);
  return `// Runs in Node 20 and in browsers; HF_GATEWAY_KEY is your key for this server, where it needs one.
const key: string = globalThis.process?.env.HF_GATEWAY_KEY ?? "none";
const response = await fetch(${JSON.stringify(`${BASE}/chat/completions`)}, {
  method: "POST",
  headers: { "content-type": "application/json", authorization: \`Bearer \${key}\` },
  body: JSON.stringify(${body.replaceAll("\n", "\n  ")}),
});
if (!response.ok || response.body === null) throw new Error(await response.text());
let rest = "";
let answer = "";
for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
  const lines: string[] = (rest + piece).split("\\n");
  rest = lines.pop() ?? "";
  for (const line of lines) {
    if (!line.startsWith("data: {")) continue;
    const chunk = JSON.parse(line.slice(6));
    if (chunk.error) throw new Error(chunk.error.message);
    answer += chunk.choices[0]?.delta.content ?? "";
  }
}
console.log(answer);
`;
}

function curl(conversation: Conversation): string {
  const body = JSON.stringify(request(conversation), null, 2);
  // The text of the body may have any word but this one on a line of its own: JSON has no such line.
  return `# HF_GATEWAY_KEY is your key for this server, where it needs one.
curl -s ${quoted(`${BASE}/chat/completions`)} \\
  -H 'content-type: application/json' \\
  -H "authorization: Bearer \${HF_GATEWAY_KEY:-none}" \\
  --data-binary @- <<'END'
${body}
END
`;
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
