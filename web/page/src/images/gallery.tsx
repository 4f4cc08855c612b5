import { useState } from "preact/hooks";
import { Others } from "../chat/message";
import { seconds, usd } from "../format";
import { download } from "../parts/download";
import { change, draw, fileName, type Picture, remove } from "./draw";

/** The pictures of this session, the last one first. */
export function Gallery({ pictures, busy }: { pictures: Picture[]; busy: boolean }) {
  return (
    <ul class="gallery">
      {pictures.map((picture) => <Shown key={picture.id} picture={picture} busy={busy} />)}
    </ul>
  );
}

function Shown({ picture, busy }: { picture: Picture; busy: boolean }) {
  const { form, seed } = picture;
  const [size, setSize] = useState("");
  const facts: [string, string][] = [
    ["Time", seconds(picture.seconds)],
    ["Cost", usd(picture.costUsd)],
    ["Seed", seed === null ? "not told" : String(seed)],
    ["Size", size],
    ...(form.steps.trim() === "" ? [] : [["Steps", form.steps] as [string, string]]),
    ...(form.guidance.trim() === "" ? [] : [["Guidance", form.guidance] as [string, string]]),
    ["Served by", picture.servedBy],
  ];
  return (
    <li class="card picture">
      <img src={picture.url} alt={form.prompt} onLoad={({ currentTarget }) => setSize(`${currentTarget.naturalWidth} × ${currentTarget.naturalHeight}`)} />
      <div class="about">
        <p class="asked">{form.prompt}</p>
        <dl class="facts">
          {facts.map(([name, value]) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd>{value}</dd>
            </div>
          ))}
        </dl>
        <Others attempts={picture.attempts} />
        <div class="row">
          <button type="button" class="small" onClick={() => download(fileName(picture), picture.data)}>Save</button>
          <button type="button" class="small" disabled={busy} onClick={() => void draw({ ...form, seed: "" })}>Another seed</button>
          <button type="button" class="quiet small" onClick={() => change({ ...form, seed: seed === null ? "" : String(seed) })}>Use these settings</button>
          <button type="button" class="quiet small" onClick={() => remove(picture)}>Remove</button>
        </div>
      </div>
    </li>
  );
}
