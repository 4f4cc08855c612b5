import { Lexer, type Token, type Tokens } from "marked";
import type { ComponentChildren } from "preact";
import { useMemo } from "preact/hooks";
import { CopyButton } from "./copy";

/**
 * Show a model's Markdown. Nothing of it becomes HTML as a text: each token is one of the elements below, so that no tag, no
 * attribute and no address of another kind than those in `safeLink` can come from an answer. HTML is shown as it was written,
 * and a picture of another host is a link, since this page loads nothing from there.
 */
export function Markdown({ text }: { text: string }) {
  const tokens = useMemo(() => new Lexer({ gfm: true, breaks: true }).lex(text), [text]);
  return <div class="markdown">{blocks(tokens)}</div>;
}

/** Return an address that a link may have, or null. */
export function safeLink(address: string): string | null {
  try {
    const found = new URL(address);
    return ["http:", "https:", "mailto:"].includes(found.protocol) ? found.href : null;
  } catch {
    return null;
  }
}

/** Return an address that a picture may have: only one that holds the picture itself. */
export function safePicture(address: string): string | null {
  return /^data:image\/(png|jpeg|gif|webp|avif);base64,[A-Za-z0-9+/=\s]+$/.test(address) ? address : null;
}

function blocks(tokens: Token[]): ComponentChildren[] {
  return tokens.map((token, index) => <Block key={index} token={token as Tokens.Generic} />);
}

function Block({ token }: { token: Tokens.Generic }) {
  switch (token.type) {
    case "space":
    case "def":
      return null;
    case "heading": {
      // An answer's headings stand below those of the page.
      const Tag = `h${Math.min(6, token.depth + 3)}` as "h4";
      return <Tag>{inline(token.tokens)}</Tag>;
    }
    case "paragraph":
      return <p>{inline(token.tokens)}</p>;
    case "text":
      return <>{token.tokens ? inline(token.tokens) : token.text}</>;
    case "blockquote":
      return <blockquote>{blocks(token.tokens ?? [])}</blockquote>;
    case "hr":
      return <hr />;
    case "code":
      return <CodeBlock text={token.text} language={token.lang ?? ""} />;
    case "list": {
      const items = (token as Tokens.List).items.map((item, index) => <Item key={index} item={item} />);
      return token.ordered ? <ol start={Number(token.start) || 1}>{items}</ol> : <ul>{items}</ul>;
    }
    case "table":
      return <Table table={token as Tokens.Table} />;
    default:
      return <p class="raw">{token.raw}</p>;
  }
}

function Item({ item }: { item: Tokens.ListItem }) {
  const box = item.task ? (item.checked ? "☑ " : "☐ ") : null;
  return (
    <li>
      {box}
      {blocks(item.tokens.filter((token) => token.type !== "checkbox"))}
    </li>
  );
}

function Table({ table }: { table: Tokens.Table }) {
  return (
    <div class="scrolls" tabIndex={0} role="group" aria-label="Table">
      <table>
        <thead>
          <tr>
            {table.header.map((cell, index) => (
              <th key={index} scope="col">
                {inline(cell.tokens)}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {table.rows.map((row, index) => (
            <tr key={index}>
              {row.map((cell, place) => (
                <td key={place}>{inline(cell.tokens)}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export function CodeBlock({ text, language }: { text: string; language: string }) {
  return (
    <div class="code">
      <div class="code-head">
        <span>{language || "text"}</span>
        <CopyButton text={text} what="code" />
      </div>
      <pre tabIndex={0} role="group" aria-label={`Code: ${language || "text"}`}>
        <code>{text}</code>
      </pre>
    </div>
  );
}

function inline(tokens: Token[] | undefined): ComponentChildren[] {
  return (tokens ?? []).map((token, index) => <Inline key={index} token={token as Tokens.Generic} />);
}

function Inline({ token }: { token: Tokens.Generic }) {
  switch (token.type) {
    case "strong":
      return <strong>{inline(token.tokens)}</strong>;
    case "em":
      return <em>{inline(token.tokens)}</em>;
    case "del":
      return <del>{inline(token.tokens)}</del>;
    case "codespan":
      return <code>{token.text}</code>;
    case "br":
      return <br />;
    case "link": {
      const address = safeLink(token.href);
      return address === null ? <>{inline(token.tokens)}</> : <Away href={address}>{inline(token.tokens)}</Away>;
    }
    case "image": {
      const held = safePicture(token.href);
      if (held !== null) return <img src={held} alt={token.text || "A picture in the answer"} />;
      const address = safeLink(token.href);
      return address === null ? <>{token.text}</> : <Away href={address}>{token.text || "picture"}</Away>;
    }
    case "escape":
      return <>{token.text}</>;
    case "text":
      return <>{token.tokens ? inline(token.tokens) : token.text}</>;
    default:
      return <>{token.raw}</>;
  }
}

/** A link to another site, which is not told from where it was followed. */
export function Away({ href, children }: { href: string; children: ComponentChildren }) {
  return (
    <a href={href} target="_blank" rel="noreferrer noopener">
      {children}
    </a>
  );
}

const ADDRESS = /https?:\/\/[^\s)'"<>,]+[^\s)'"<>,.;:]/g;

/** A text of the server, in which the addresses of sites are links and what stands in backticks is code. */
export function Words({ text }: { text: string }) {
  const made: ComponentChildren[] = [];
  for (const [index, part] of text.split("`").entries()) {
    if (index % 2 === 1) {
      made.push(<code>{part}</code>);
      continue;
    }
    let end = 0;
    for (const found of part.matchAll(ADDRESS)) {
      made.push(part.slice(end, found.index));
      const address = safeLink(found[0]);
      made.push(address?.startsWith("https:") ? <Away href={address}>{found[0].replace("https://", "")}</Away> : found[0]);
      end = found.index + found[0].length;
    }
    made.push(part.slice(end));
  }
  return <>{made}</>;
}
