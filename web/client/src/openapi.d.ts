// Generated from the server's OpenAPI document by scripts/generate.mjs; do not edit.

export interface paths {
    "/v1/embeddings": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Embed texts
         * @description Needs the scope `embed`.
         */
        post: operations["post_v1_embeddings"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/models": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List the chains
         * @description Needs the scope `read`.
         */
        get: operations["get_v1_models"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/rerank": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Sort documents by how well they answer a query
         * @description Needs the scope `rerank`.
         */
        post: operations["post_v1_rerank"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/chat/completions": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Answer a conversation
         * @description Needs the scope `chat`.
         */
        post: operations["post_v1_chat_completions"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/huggingface/embedding": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Embed a text
         * @description Needs the scope `embed`.
         */
        post: operations["post_huggingface_embedding"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/huggingface/status": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Report which targets may be called
         * @description Needs the scope `read`.
         */
        get: operations["get_huggingface_status"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
}
export type webhooks = Record<string, never>;
export interface components {
    schemas: {
        /**
         * ChainState
         * @description One chain for embeddings or chat.
         */
        ChainState: {
            /** Chain */
            chain: string;
            /** Task */
            task: string;
            /** Model */
            model: string;
            /** Available */
            available: boolean;
            /** Targets */
            targets: components["schemas"]["TargetState"][];
        };
        /**
         * ChatAnswerBody
         * @description The answer of POST /v1/chat/completions.
         */
        ChatAnswerBody: {
            /** Id */
            id: string;
            /**
             * Object
             * @constant
             */
            object: "chat.completion";
            /** Created */
            created: number;
            /** Model */
            model: string;
            /** Choices */
            choices: components["schemas"]["ChatChoice"][];
            /** @default null */
            usage?: components["schemas"]["ChatUsage"] | null;
        };
        /**
         * ChatChoice
         * @description One answer.
         */
        ChatChoice: {
            /** Index */
            index: number;
            /** Message */
            message: {
                [key: string]: unknown;
            };
            /**
             * Finish Reason
             * @enum {string}
             */
            finish_reason: "stop" | "length" | "tool_calls" | "content_filter";
            /**
             * Logprobs
             * @default null
             */
            logprobs?: {
                [key: string]: unknown;
            } | null;
        };
        /**
         * ChatUsage
         * @description The tokens of a request and its answer.
         */
        ChatUsage: {
            /** Prompt Tokens */
            prompt_tokens: number;
            /** Completion Tokens */
            completion_tokens: number;
            /** Total Tokens */
            total_tokens: number;
        };
        /**
         * Document
         * @description A document with its text in a field.
         */
        Document: {
            /** Text */
            text: string;
        };
        /**
         * EmbeddingAnswer
         * @description The answer of POST /huggingface/embedding.
         */
        EmbeddingAnswer: {
            /** Embedding */
            embedding: number[];
            /** Dimensions */
            dimensions: number;
            /** Model */
            model: string;
        };
        /**
         * EmbeddingObject
         * @description One vector.
         */
        EmbeddingObject: {
            /**
             * Object
             * @constant
             */
            object: "embedding";
            /** Index */
            index: number;
            /** Embedding */
            embedding: number[] | string;
        };
        /**
         * EmbeddingUsage
         * @description The tokens of a request.
         */
        EmbeddingUsage: {
            /** Prompt Tokens */
            prompt_tokens: number;
            /** Total Tokens */
            total_tokens: number;
        };
        /**
         * EmbeddingsAnswer
         * @description The answer of POST /v1/embeddings.
         */
        EmbeddingsAnswer: {
            /**
             * Object
             * @constant
             */
            object: "list";
            /** Data */
            data: components["schemas"]["EmbeddingObject"][];
            /** Model */
            model: string;
            usage: components["schemas"]["EmbeddingUsage"];
        };
        /**
         * EmbeddingsBody
         * @description The body of POST /v1/embeddings.
         */
        EmbeddingsBody: {
            /** Input */
            input: string | string[] | number[] | number[][];
            /**
             * Model
             * @default null
             */
            model?: string | null;
            /**
             * Encoding Format
             * @default float
             * @enum {string}
             */
            encoding_format?: "float" | "base64";
            /**
             * Dimensions
             * @default null
             */
            dimensions?: number | null;
            /**
             * Input Type
             * @default null
             */
            input_type?: string | null;
            /**
             * User
             * @default null
             */
            user?: string | null;
        };
        /**
         * ErrorBody
         * @description The body of an error.
         */
        ErrorBody: {
            error: components["schemas"]["ErrorObject"];
        };
        /**
         * ErrorObject
         * @description What went wrong.
         */
        ErrorObject: {
            /** Message */
            message: string;
            /** Type */
            type: string;
            /** Param */
            param: string | null;
            /** Code */
            code: string | null;
        };
        /**
         * ModelList
         * @description The answer of GET /v1/models.
         */
        ModelList: {
            /**
             * Object
             * @constant
             */
            object: "list";
            /** Data */
            data: components["schemas"]["ModelObject"][];
        };
        /**
         * ModelObject
         * @description A chain, as OpenAI's API lists models.
         */
        ModelObject: {
            /** Id */
            id: string;
            /**
             * Object
             * @constant
             */
            object: "model";
            /** Created */
            created: number;
            /** Owned By */
            owned_by: string;
            /** Task */
            task: string;
            /** Model */
            model: string;
            /**
             * Space
             * @default null
             */
            space?: string | null;
            /**
             * Dimension
             * @default null
             */
            dimension?: number | null;
            /**
             * Context Length
             * @default null
             */
            context_length?: number | null;
            /**
             * Price
             * @default null
             */
            price?: {
                [key: string]: number;
            } | null;
        };
        /**
         * PlainError
         * @description The body of an error.
         */
        PlainError: {
            /** Error */
            error: string;
            /** Code */
            code: string;
        };
        /**
         * RankedDocument
         * @description A document and its score.
         */
        RankedDocument: {
            /** Index */
            index: number;
            /** Relevance Score */
            relevance_score: number;
            /** @default null */
            document?: components["schemas"]["Document"] | null;
        };
        /**
         * RerankUsage
         * @description The tokens of a request.
         */
        RerankUsage: {
            /** Total Tokens */
            total_tokens: number;
        };
        /**
         * StreamOptions
         * @description What a stream has beside its pieces.
         */
        StreamOptions: {
            /**
             * Include Usage
             * @default null
             */
            include_usage?: boolean | null;
            /**
             * Include Details
             * @default null
             */
            include_details?: boolean | null;
        };
        /**
         * TargetState
         * @description One target of a chain.
         */
        TargetState: {
            /** Target */
            target: string;
            /** Available */
            available: boolean;
            /**
             * Error
             * @default null
             */
            error?: string | null;
        };
        /**
         * TextBody
         * @description The body of POST /huggingface/embedding.
         */
        TextBody: {
            /** Text */
            text: string;
            /**
             * Model
             * @default null
             */
            model?: string | null;
        };
        /**
         * StatusAnswer
         * @description The answer of GET /huggingface/status.
         */
        hf_gateway__server__surfaces__guide_a__StatusAnswer: {
            /** Available */
            available: boolean;
            /** Has Api Key */
            has_api_key: boolean;
            /** Errors */
            errors: string[];
            /** Chains */
            chains: components["schemas"]["ChainState"][];
        };
        /**
         * ChatBody
         * @description The body of POST /v1/chat/completions.
         */
        hf_gateway__server__surfaces__openai_chat__ChatBody: {
            /**
             * Model
             * @default null
             */
            model?: string | null;
            /**
             * Stream
             * @default null
             */
            stream?: boolean | null;
            /** @default null */
            stream_options?: components["schemas"]["StreamOptions"] | null;
            /**
             * N
             * @default null
             */
            n?: number | null;
            /**
             * Temperature
             * @default null
             */
            temperature?: number | null;
            /**
             * Top P
             * @default null
             */
            top_p?: number | null;
            /**
             * Top K
             * @default null
             */
            top_k?: number | null;
            /**
             * Min P
             * @default null
             */
            min_p?: number | null;
            /**
             * Max Tokens
             * @default null
             */
            max_tokens?: number | null;
            /**
             * Stop
             * @default null
             */
            stop?: string | string[] | null;
            /**
             * Seed
             * @default null
             */
            seed?: number | null;
            /**
             * Frequency Penalty
             * @default null
             */
            frequency_penalty?: number | null;
            /**
             * Presence Penalty
             * @default null
             */
            presence_penalty?: number | null;
            /**
             * Repetition Penalty
             * @default null
             */
            repetition_penalty?: number | null;
            /**
             * Messages
             * @example [
             *       {
             *         "content": "Why is the sky blue?",
             *         "role": "user"
             *       }
             *     ]
             */
            messages: {
                [key: string]: unknown;
            }[];
            /**
             * Max Completion Tokens
             * @default null
             */
            max_completion_tokens?: number | null;
            /**
             * Tools
             * @default null
             */
            tools?: {
                [key: string]: unknown;
            }[] | null;
            /**
             * Tool Choice
             * @default null
             */
            tool_choice?: string | {
                [key: string]: unknown;
            } | null;
            /**
             * Response Format
             * @default null
             */
            response_format?: {
                [key: string]: unknown;
            } | null;
            /**
             * Logprobs
             * @default null
             */
            logprobs?: boolean | null;
            /**
             * Top Logprobs
             * @default null
             */
            top_logprobs?: number | null;
            /**
             * Reasoning Effort
             * @default null
             */
            reasoning_effort?: string | null;
            /**
             * Parallel Tool Calls
             * @default null
             */
            parallel_tool_calls?: boolean | null;
            /**
             * Functions
             * @default null
             */
            functions?: {
                [key: string]: unknown;
            }[] | null;
        };
        /**
         * RerankAnswer
         * @description The answer of POST /v1/rerank.
         */
        hf_gateway__server__surfaces__openai_rerank__RerankAnswer: {
            /** Id */
            id: string;
            /** Model */
            model: string;
            /**
             * Scale
             * @enum {string}
             */
            scale: "probability" | "logit" | "bm25";
            /** Results */
            results: components["schemas"]["RankedDocument"][];
            /** @default null */
            usage?: components["schemas"]["RerankUsage"] | null;
        };
        /**
         * RerankBody
         * @description The body of POST /v1/rerank.
         */
        hf_gateway__server__surfaces__openai_rerank__RerankBody: {
            /** Query */
            query: string;
            /** Documents */
            documents: (string | components["schemas"]["Document"])[];
            /**
             * Model
             * @default null
             */
            model?: string | null;
            /**
             * Top N
             * @default null
             */
            top_n?: number | null;
            /**
             * Return Documents
             * @default null
             */
            return_documents?: boolean | null;
        };
    };
    responses: never;
    parameters: never;
    requestBodies: never;
    headers: never;
    pathItems: never;
}
export type $defs = Record<string, never>;
export interface operations {
    post_v1_embeddings: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["EmbeddingsBody"];
            };
        };
        responses: {
            /** @description the answer */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["EmbeddingsAnswer"];
                };
            };
            /** @description the request is invalid */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description there is no valid credential */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description a budget is used up */
            402: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description the credential does not have the scope */
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description there is no such model */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description the body arrives too slowly */
            408: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description the vectors would be of another space than the request demands */
            412: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description the body is too large */
            413: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description too many requests */
            429: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description the headers are too large */
            431: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description the server failed */
            500: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description the model cannot do this */
            501: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description a target failed */
            502: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description nothing can serve the request now */
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description the answer took too long */
            504: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    get_v1_models: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description the answer */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ModelList"];
                };
            };
            /** @description the request is invalid */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description there is no valid credential */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description the credential does not have the scope */
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description the headers are too large */
            431: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    post_v1_rerank: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["hf_gateway__server__surfaces__openai_rerank__RerankBody"];
            };
        };
        responses: {
            /** @description the answer */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["hf_gateway__server__surfaces__openai_rerank__RerankAnswer"];
                };
            };
            /** @description the request is invalid */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description there is no valid credential */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description a budget is used up */
            402: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description the credential does not have the scope */
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description there is no such model */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description the body arrives too slowly */
            408: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description the body is too large */
            413: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description too many requests */
            429: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description the headers are too large */
            431: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description the server failed */
            500: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description the model cannot do this */
            501: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description a target failed */
            502: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description nothing can serve the request now */
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description the answer took too long */
            504: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    post_v1_chat_completions: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["hf_gateway__server__surfaces__openai_chat__ChatBody"];
            };
        };
        responses: {
            /** @description the answer */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ChatAnswerBody"];
                    "text/event-stream": unknown;
                };
            };
            /** @description the request is invalid */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description there is no valid credential */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description a budget is used up */
            402: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description the credential does not have the scope */
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description there is no such model */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description the body arrives too slowly */
            408: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description the body is too large */
            413: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description too many requests */
            429: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description the headers are too large */
            431: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description the server failed */
            500: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description the model cannot do this */
            501: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description a target failed */
            502: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description nothing can serve the request now */
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description the answer took too long */
            504: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    post_huggingface_embedding: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["TextBody"];
            };
        };
        responses: {
            /** @description the answer */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["EmbeddingAnswer"];
                };
            };
            /** @description the request is invalid */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlainError"];
                };
            };
            /** @description there is no valid credential */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlainError"];
                };
            };
            /** @description a budget is used up */
            402: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlainError"];
                };
            };
            /** @description the credential does not have the scope */
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlainError"];
                };
            };
            /** @description there is no such model */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlainError"];
                };
            };
            /** @description the body arrives too slowly */
            408: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlainError"];
                };
            };
            /** @description the vectors would be of another space than the request demands */
            412: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlainError"];
                };
            };
            /** @description the body is too large */
            413: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlainError"];
                };
            };
            /** @description too many requests */
            429: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlainError"];
                };
            };
            /** @description the headers are too large */
            431: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlainError"];
                };
            };
            /** @description the server failed */
            500: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlainError"];
                };
            };
            /** @description the model cannot do this */
            501: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlainError"];
                };
            };
            /** @description a target failed */
            502: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlainError"];
                };
            };
            /** @description nothing can serve the request now */
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlainError"];
                };
            };
            /** @description the answer took too long */
            504: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlainError"];
                };
            };
        };
    };
    get_huggingface_status: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description the answer */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["hf_gateway__server__surfaces__guide_a__StatusAnswer"];
                };
            };
            /** @description the request is invalid */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlainError"];
                };
            };
            /** @description there is no valid credential */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlainError"];
                };
            };
            /** @description the credential does not have the scope */
            403: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlainError"];
                };
            };
            /** @description the headers are too large */
            431: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlainError"];
                };
            };
        };
    };
}
