import { count, many, seconds, sentence, usd } from "../format";
import type { Model } from "../models";
import { CopyButton } from "../parts/copy";
import { CodeBlock, Markdown, safePicture, Words } from "../parts/markdown";
import { retry } from "./talk";
import type { Attempt, Facts, Message, ToolCall } from "./types";

interface Props {
  message: Message;
  model: Model | undefined;
  answering: boolean;
  last: boolean;
  busy: boolean;
}

export function MessageCard({ message, answering, last, busy }: Props) {
  if (message.role === "user") {
    return (
      <article class="message mine" aria-label="You">
        <div class="bubble">
          <p class="plain">{message.content}</p>
          <Pictures images={message.images ?? []} />
        </div>
      </article>
    );
  }
  if (message.role === "tool") {
    return (
      <article class="message tool" aria-label="Tool result">
        <p class="muted">Tool result</p>
        <CodeBlock text={message.content} language="result" />
      </article>
    );
  }
  return (
    <article class="message answer" aria-label="Answer" aria-busy={answering}>
      <AnswerBody message={message} answering={answering} />
      {!answering && (
        <footer>
          {message.facts !== undefined && <FactsLine facts={message.facts} />}
          <span class="actions">
            {message.content !== "" && <CopyButton text={message.content} what="the answer" />}
            {last && (
              <button type="button" class="quiet small" disabled={busy} onClick={retry}>
                {message.error !== undefined ? "Try again" : "Retry"}
              </button>
            )}
          </span>
          {message.facts !== undefined && <Others attempts={message.facts.attempts} />}
        </footer>
      )}
    </article>
  );
}

/** What an answer says, how it ended, and why if it broke off. */
export function AnswerBody({ message, answering }: { message: Message; answering: boolean }) {
  const empty = message.content === "" && message.toolCalls === undefined;
  return (
    <>
      {message.reasoning !== undefined && (
        <details class="reasoning">
          <summary>{answering && empty ? "Reasoning …" : "Reasoning"}</summary>
          <Markdown text={message.reasoning} />
        </details>
      )}
      {message.content !== "" && <Markdown text={message.content} />}
      {(message.toolCalls ?? []).map((call) => <Call key={call.id} call={call} />)}
      {answering && empty && message.reasoning === undefined && (
        <p class="busy">
          <span class="spinner" aria-hidden="true" />
          Waiting for the first word …
        </p>
      )}
      {!answering && empty && message.error === undefined && message.stopped !== true && <p class="muted">The model answered nothing.</p>}
      {message.stopped === true && <p class="notice warn">You stopped this answer.</p>}
      {message.facts?.finish === "length" && <p class="notice warn">The answer ended at the maximum of tokens; raise <em>Max tokens</em> for more.</p>}
      {message.facts?.finish === "content_filter" && <p class="notice warn">The provider filtered the rest of the answer.</p>}
      {message.error !== undefined && (
        <div class="notice bad" role="alert">
          <p>
            <strong>{message.error.title}</strong>
          </p>
          <p class="said">
            <Words text={sentence(message.error.message)} />
          </p>
        </div>
      )}
    </>
  );
}

function FactsLine({ facts }: { facts: Facts }) {
  const parts: string[] = [];
  if (facts.servedBy !== null) parts.push(facts.servedBy);
  if (facts.inputTokens !== null && facts.outputTokens !== null) parts.push(`${count(facts.inputTokens)} → ${many(facts.outputTokens, "token")}`);
  else if (facts.servedBy !== null) parts.push("tokens not counted");
  if (facts.servedBy !== null) parts.push(usd(facts.costUsd));
  if (facts.firstSeconds !== null) parts.push(`first word after ${seconds(facts.firstSeconds)}`);
  parts.push(`${seconds(facts.seconds)} in all`);
  return <span class="facts-line">{parts.map((part, index) => <span key={index}>{part}</span>)}</span>;
}

/** Why the targets before the one that served did not. */
export function Others({ attempts }: { attempts: Attempt[] }) {
  const others = attempts.filter((attempt) => attempt.outcome !== "served");
  if (others.length === 0) return null;
  return (
    <details class="others">
      <summary>{many(others.length, "target")} before it did not answer</summary>
      <ul>
        {others.map((attempt, index) => (
          <li key={index}>
            <strong>{attempt.target}</strong> {attempt.outcome === "skipped" ? "was skipped" : `failed${attempt.calls > 1 ? ` ${attempt.calls} times` : ""} after ${seconds(attempt.seconds)}`}
            {attempt.error !== null && (
              <>
                : <Words text={sentence(attempt.error.replace(/^\w+: /, ""))} />
              </>
            )}
          </li>
        ))}
      </ul>
    </details>
  );
}

function Call({ call }: { call: ToolCall }) {
  let text = call.arguments;
  try {
    text = JSON.stringify(JSON.parse(call.arguments), null, 2);
  } catch {
    // Not yet whole, or not JSON: shown as it came.
  }
  return (
    <div class="call">
      <p>
        Calls <code>{call.name}</code>
      </p>
      <CodeBlock text={text} language="json" />
    </div>
  );
}

export function Pictures({ images }: { images: string[] }) {
  if (images.length === 0) return null;
  return (
    <div class="pictures">
      {images.map((url, index) => {
        const safe = safePicture(url);
        return safe === null ? null : <img key={index} src={safe} alt={`Picture ${index + 1} that you sent`} />;
      })}
    </div>
  );
}
