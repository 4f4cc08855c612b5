// Calls of one client to a server: `node cases.mjs CLIENT CASE URL [KEY]` prints what it got as a line of JSON.
// A case that leaves in the middle prints its line first and goes on until its stdin ends, so that the process's own end closes nothing.

const [client, name, url, key = "none"] = process.argv.slice(2);

// Only the client of the case is loaded: all of them together take a second.
const loaded = async (wanted, name) => (client === wanted ? import(name) : {});
const { default: OpenAI } = await loaded("openai", "openai");
const { Ollama } = await loaded("ollama", "ollama");
const { InferenceClient } = await loaded("huggingface", "@huggingface/inference");
const { createOpenAICompatible } = await loaded("ai", "@ai-sdk/openai-compatible");
const { embedMany, generateText, jsonSchema, streamText, tool } = await loaded("ai", "ai");
const { createClient } = await loaded("supabase", "@supabase/supabase-js");
const messages = [{ role: "user", content: "count" }];
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const functions = [{ type: "function", function: { name: "weather", description: "The weather of a city", parameters } }];

const print = (value) => console.log(JSON.stringify(value));

/** Prints what has been read, and waits until the test lets the process end. */
async function left(pieces) {
  print(pieces);
  for await (const _ of process.stdin);
}

/** Calls back once the test has written to this process's stdin. */
const whenTold = (told) => process.stdin.once("data", told);

async function collected(stream, text) {
  const pieces = [];
  for await (const piece of stream) pieces.push(text(piece));
  return pieces.filter(Boolean);
}

/** What a stream gave before its error, and the error's kind and words. */
async function broken(stream, text) {
  const pieces = [];
  try {
    for await (const piece of stream) pieces.push(text(piece));
  } catch (error) {
    return [pieces.filter(Boolean), error.constructor.name, error.message];
  }
  return [pieces.filter(Boolean), null, null];
}

const openai = OpenAI && new OpenAI({ baseURL: `${url}/v1`, apiKey: key });
const openaiStream = (options) => openai.chat.completions.create({ model: "talk", messages, stream: true }, options);
const openaiText = (piece) => piece.choices[0]?.delta?.content;

const ollama = Ollama && new Ollama({ host: url });
const ollamaText = (piece) => piece.message.content;

const huggingface = (model) => new InferenceClient(key, { endpointUrl: `${url}/models/${model}` });

const compatible = createOpenAICompatible?.({ name: "gateway", baseURL: `${url}/v1`, apiKey: key, includeUsage: true });

const supabase = createClient?.(url, "a-public-key", { realtime: { transport: class {} } });
const invoke = async (body, options) => {
  const { data, error } = await supabase.functions.invoke("huggingface-inference", { body, ...options });
  return [data, error && [error.constructor.name, error.context?.status, await error.context?.json?.()]];
};

const clients = {
  openai: {
    plain: async () => {
      const models = (await openai.models.list()).data.map((each) => each.id);
      const one = await openai.models.retrieve("docs");
      const vectors = (await openai.embeddings.create({ model: "docs", input: ["one", "two"] })).data;
      const chat = await openai.chat.completions.create({ model: "talk", messages }).withResponse();
      const completion = await openai.completions.create({ model: "talk", prompt: "count" });
      return {
        models,
        model: one.id,
        vectors: vectors.map((each) => Array.from(each.embedding)),
        text: chat.data.choices[0].message.content,
        usage: chat.data.usage.total_tokens,
        request: chat.request_id,
        completion: completion.choices[0].text,
      };
    },
    streamed: async () => {
      const options = { model: "talk", messages, stream: true, stream_options: { include_usage: true } };
      const usage = [];
      const pieces = await collected(await openai.chat.completions.create(options), (piece) => {
        if (piece.usage) usage.push(piece.usage.completion_tokens);
        return openaiText(piece);
      });
      return { pieces, usage };
    },
    tools: async () => {
      const answer = await openai.chat.completions.create({ model: "talk", messages, tools: functions });
      const call = answer.choices[0].message.tool_calls[0];
      return [answer.choices[0].finish_reason, call.function.name, JSON.parse(call.function.arguments)];
    },
    failing: async () => {
      const failures = [];
      for (const call of [
        () => openai.chat.completions.create({ model: "walk", messages }),
        () => openai.chat.completions.create({ model: "talk", messages: [{ role: "nobody" }] }),
        () => openai.embeddings.create({ model: "docs", input: [1, 2] }),
      ]) {
        try {
          await call();
        } catch (error) {
          failures.push([error.constructor.name, error.status, error.code, error.message, error.requestID?.slice(0, 4)]);
        }
      }
      return failures;
    },
    unavailable: async () => {
      try {
        return await openai.chat.completions.create({ model: "talk", messages });
      } catch (error) {
        return [error.constructor.name, error.status];
      }
    },
    broken: async () => broken(await openaiStream(), openaiText),
    aborted: async () => {
      const leave = new AbortController();
      const pieces = [];
      for await (const piece of await openaiStream({ signal: leave.signal })) {
        pieces.push(openaiText(piece));
        if (openaiText(piece)) leave.abort();
      }
      await left(pieces.filter(Boolean));
    },
    abortedWhole: async () => {
      const leave = new AbortController();
      whenTold(() => leave.abort());
      try {
        await openai.chat.completions.create({ model: "talk", messages }, { signal: leave.signal });
      } catch (error) {
        await left(error.constructor.name);
      }
    },
  },
  ollama: {
    plain: async () => {
      const chat = await ollama.chat({ model: "talk", messages });
      return {
        models: (await ollama.list()).models.map((each) => each.name),
        shown: (await ollama.show({ model: "talk" })).capabilities,
        vectors: (await ollama.embed({ model: "docs", input: ["one", "two"] })).embeddings,
        text: chat.message.content,
        count: chat.eval_count,
        generated: (await ollama.generate({ model: "talk", prompt: "count" })).response,
      };
    },
    streamed: async () => collected(await ollama.chat({ model: "talk", messages, stream: true }), ollamaText),
    tools: async () => (await ollama.chat({ model: "talk", messages, tools: functions })).message.tool_calls[0].function,
    failing: async () => {
      const failures = [];
      for (const call of [() => ollama.chat({ model: "walk", messages }), () => ollama.pull({ model: "llama3" })]) {
        try {
          await call();
        } catch (error) {
          failures.push([error.constructor.name, error.status_code, error.message]);
        }
      }
      return failures;
    },
    broken: async () => broken(await ollama.chat({ model: "talk", messages, stream: true }), ollamaText),
    aborted: async () => {
      const stream = await ollama.chat({ model: "talk", messages, stream: true });
      const pieces = [];
      try {
        for await (const piece of stream) {
          pieces.push(ollamaText(piece));
          stream.abort();
        }
      } catch (error) {
        pieces.push(error.name);
      }
      await left(pieces);
    },
  },
  huggingface: {
    plain: async () => {
      const image = await huggingface("draw").textToImage({ inputs: "a cat" }, { outputType: "blob" });
      return {
        vectors: await huggingface("docs").featureExtraction({ inputs: ["one", "two"] }),
        vector: (await huggingface("docs").featureExtraction({ inputs: "one" })).length,
        generated: (await huggingface("talk").textGeneration({ inputs: "count" })).generated_text,
        text: (await huggingface("talk").chatCompletion({ messages })).choices[0].message.content,
        named: (await new InferenceClient(key, { endpointUrl: url }).chatCompletion({ model: "talk", messages })).choices.length,
        labels: (await huggingface("judge").textClassification({ inputs: "fine" })).map((each) => each.label),
        image: [image.type, image.size > 0],
      };
    },
    streamed: async () =>
      collected(huggingface("talk").chatCompletionStream({ messages }), (piece) => piece.choices[0]?.delta?.content),
    failing: async () => {
      const failures = [];
      for (const call of [
        () => huggingface("dogs").featureExtraction({ inputs: "one" }),
        () => huggingface("walk").chatCompletion({ messages }),
      ]) {
        try {
          await call();
        } catch (error) {
          failures.push([error.constructor.name, error.httpResponse.status, JSON.stringify(error.httpResponse.body)]);
        }
      }
      return failures;
    },
    broken: async () =>
      broken(huggingface("talk").chatCompletionStream({ messages }), (piece) => piece.choices[0]?.delta?.content),
    aborted: async () => {
      const leave = new AbortController();
      const pieces = [];
      try {
        for await (const piece of huggingface("talk").chatCompletionStream({ messages }, { signal: leave.signal })) {
          pieces.push(piece.choices[0]?.delta?.content);
          if (pieces.at(-1)) leave.abort();
        }
      } catch (error) {
        pieces.push(error.name);
      }
      await left(pieces.filter(Boolean));
    },
  },
  ai: {
    plain: async () => {
      const answer = await generateText({ model: compatible("talk"), prompt: "count" });
      const { embeddings } = await embedMany({ model: compatible.textEmbeddingModel("docs"), values: ["one", "two"] });
      return { text: answer.text, finish: answer.finishReason, usage: answer.usage.totalTokens, vectors: embeddings };
    },
    streamed: async () => {
      const answer = streamText({ model: compatible("talk"), prompt: "count" });
      return { pieces: await collected(answer.textStream, (piece) => piece), usage: (await answer.usage).outputTokens };
    },
    tools: async () => {
      const tools = { weather: tool({ description: "The weather of a city", inputSchema: jsonSchema(parameters) }) };
      const { toolCalls } = await generateText({ model: compatible("talk"), prompt: "weather?", tools });
      return [toolCalls[0].toolName, toolCalls[0].input];
    },
    failing: async () => {
      try {
        await generateText({ model: compatible("walk"), prompt: "count" });
      } catch (error) {
        return [error.name, error.statusCode, error.message, error.isRetryable];
      }
    },
    broken: async () => {
      const errors = [];
      const answer = streamText({ model: compatible("talk"), prompt: "count", onError: ({ error }) => errors.push(error) });
      const pieces = await collected(answer.textStream, (piece) => piece);
      return [pieces, await answer.finishReason, errors.map((error) => error?.message ?? error)];
    },
    aborted: async () => {
      const leave = new AbortController();
      const pieces = [];
      const answer = streamText({ model: compatible("talk"), prompt: "count", abortSignal: leave.signal });
      for await (const piece of answer.textStream) {
        pieces.push(piece);
        leave.abort();
      }
      await left(pieces);
    },
  },
  supabase: {
    plain: async () => ({
      generated: await invoke({ modelId: "talk", task: "text-generation", inputs: "count", parameters: { max_tokens: 50 } }),
      vectors: await invoke({ modelId: "docs", task: "feature-extraction", inputs: ["one", "two"] }),
      image: (await invoke({ modelId: "draw", task: "text-to-image", inputs: "a cat" }))[0].result.image.slice(0, 22),
    }),
    failing: async () => [
      await invoke({ modelId: "walk", task: "text-generation", inputs: "count" }),
      await invoke({ modelId: "talk", task: "no-task", inputs: "count" }),
    ],
    unavailable: async () => invoke({ modelId: "talk", task: "text-generation", inputs: "count" }),
    keyed: async () => [
      await invoke({ modelId: "docs", task: "feature-extraction", inputs: "one" }),
      await invoke(
        { modelId: "docs", task: "feature-extraction", inputs: "one" },
        { headers: { Authorization: `Bearer ${key}` } },
      ),
    ],
    aborted: async () => {
      const leave = new AbortController();
      whenTold(() => leave.abort());
      const body = { modelId: "talk", task: "text-generation", inputs: "count" };
      const { error } = await supabase.functions.invoke("huggingface-inference", { body, signal: leave.signal });
      await left(error.constructor.name);
    },
  },
};

const value = await clients[client][name]();
if (value !== undefined) print(value);
process.exit(0);
