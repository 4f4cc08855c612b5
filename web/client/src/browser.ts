export { BrowserClassifier, type ClassifyOptions, type Label } from "./browser/classifier.js";
export { BrowserEmbedder, type BrowserEmbedOptions, type LoadOptions } from "./browser/embedder.js";
export { type Agreement, compareSpaces, type MeasuredSpace, measuredSpace, MIN_SAME_COSINE, type Role, type ServerOptions } from "./browser/space.js";
export { HybridEmbedder, type HybridOptions, type Place, type Routed, type VectorClient } from "./browser/hybrid.js";
export { type EmbedTexts, type Intent, IntentClassifier, type IntentOptions } from "./browser/intents.js";
export type { ModelOptions } from "./browser/model-worker.js";
export { BrowserTranscriber, type SpeechOptions, type TranscribeOptions } from "./browser/transcriber.js";
export type { Heard } from "./browser/worker.js";
export { GatewayClient, GatewayError } from "./index.js";
