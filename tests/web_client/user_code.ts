// What users write: it has to pass the compiler, and each line under @ts-expect-error has to be refused by it.
import { type ChatEvent, GatewayClient, GatewayError, type Model } from "hf-gateway-client";

const client = new GatewayClient({ baseUrl: "http://127.0.0.1:8080", apiKey: "k", expectSpace: "s", chains: ["hf", "hash"] });
const { generateEmbedding, generateHuggingFaceEmbedding } = client;

export async function use(signal: AbortSignal): Promise<string> {
  const one: Float32Array = await client.embed("a", { inputType: "query", signal });
  const many: Float32Array[] = await client.embedBatch(["a", "b"], { model: "docs" });
  const numbers: number[][] = [await generateHuggingFaceEmbedding("a"), await generateEmbedding("a")];
  const scores: number[] = (await client.rerank("q", ["a"], { top_n: 1 })).map((each) => each.relevance_score);
  const names: string[] = (await client.models()).map((model: Model) => model.id);
  const ready: boolean = (await client.status()).available;
  let text = "";
  try {
    for await (const event of client.chat([{ role: "user", content: "a" }], { temperature: 0.5, max_tokens: 9, signal })) {
      const seen: ChatEvent = event;
      text += seen.text;
      if (event.done) text += event.toolCalls.map((call) => call.name + call.arguments).join() + event.usage?.total_tokens;
      // @ts-expect-error: only the end has tool calls
      else event.toolCalls;
    }
  } catch (error) {
    if (error instanceof GatewayError) text += `${error.status satisfies number} ${error.code satisfies string} ${error.partial}`;
  }
  // @ts-expect-error: a text, not texts
  await client.embed(["a"]);
  // @ts-expect-error: no such role of a text
  await client.embed("a", { inputType: "other" });
  // @ts-expect-error: the client sets it
  client.chat("a", { stream: false });
  // @ts-expect-error: a number
  client.chat("a", { temperature: "hot" });
  // @ts-expect-error: it is read only
  client.space = "other";
  return [text, one.length, many.length, numbers.length, scores, names, ready].join();
}
