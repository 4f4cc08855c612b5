import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { dayName, days, type Figures, type Measure, type Report } from "./figures";

const HEIGHT_PX = 210;
const DARK = matchMedia("(prefers-color-scheme: dark)");

/** Shows a measure of each day. The colours are those of the legend's marks, which the style sheet gives. */
export function DayChart({ report, measure, label }: { report: Report; measure: Measure; label: string }) {
  const place = useRef<HTMLDivElement>(null);
  const legend = useRef<HTMLUListElement>(null);
  const [at, setAt] = useState<number | null>(null);
  const [dark, setDark] = useState(DARK.matches);
  const shown = useMemo(() => days(report), [report]);
  useEffect(() => {
    const follow = () => setDark(DARK.matches);
    DARK.addEventListener("change", follow);
    return () => DARK.removeEventListener("change", follow);
  }, []);
  useLayoutEffect(() => {
    const box = place.current;
    const marks = legend.current?.querySelectorAll<HTMLElement>(".mark");
    if (box === null || marks === undefined) return undefined;
    const colours = [...marks].map((mark) => getComputedStyle(mark).backgroundColor);
    const plot = new uPlot(options(measure, colours, box, setAt), values(shown, measure), box);
    const fit = new ResizeObserver(() => plot.setSize({ width: box.clientWidth, height: HEIGHT_PX }));
    fit.observe(box);
    return () => {
      fit.disconnect();
      plot.destroy();
    };
  }, [shown, measure, dark]);
  return (
    <figure class="chart">
      <ul class="legend" ref={legend} aria-hidden="true">
        {measure.lines.map((line) => (
          <li key={line.title}>
            <span class={`mark ${line.tone}`} />
            {line.title}
          </li>
        ))}
      </ul>
      <div class="plot" ref={place} role="img" aria-label={label} />
      <figcaption class="muted">{at === null ? summary(shown, measure) : reading(shown[at], measure)}</figcaption>
    </figure>
  );
}

/** Return the numbers of each line; a day without a call has none of what it counts, and no latency. */
function values(shown: [number, Figures | null][], measure: Measure): uPlot.AlignedData {
  const none = measure.bars ? 0 : null;
  return [
    shown.map(([time]) => time),
    ...measure.lines.map((line) => shown.map(([, figures]) => (figures === null ? none : line.of(figures)))),
  ];
}

function options(measure: Measure, colours: string[], box: HTMLElement, point: (index: number | null) => void): uPlot.Options {
  const { color, fontFamily } = getComputedStyle(box);
  const lines = getComputedStyle(box).borderTopColor;
  const font = `12px ${fontFamily}`;
  const axis = { stroke: color, font, ticks: { show: false }, grid: { stroke: lines, width: 1 } };
  const paths = measure.bars ? uPlot.paths.bars?.({ size: [0.7, 48], radius: 0.15 }) : undefined;
  return {
    width: box.clientWidth,
    height: HEIGHT_PX,
    padding: [12, 12, 0, 0],
    legend: { show: false },
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    scales: {
      x: { range: (_, min, max) => [min - 43_200, max + 43_200] },
      y: { range: (_, __, max) => [0, max > 0 ? max * 1.08 : 1] },
    },
    cursor: { y: false, drag: { x: false, y: false }, points: { show: !measure.bars } },
    axes: [
      { ...axis, size: 30, grid: { show: false }, incrs: [1, 2, 7, 14].map((each) => each * 86_400), space: 64, values: (_, ticks) => ticks.map((tick) => dayName(tick).slice(4)) },
      { ...axis, size: 56, values: (_, ticks) => ticks.map(measure.write) },
    ],
    series: [
      {},
      ...measure.lines.map((line, index): uPlot.Series => {
        const colour = colours[index] ?? color;
        return {
          label: line.title,
          stroke: colour,
          width: measure.bars ? 0 : 2,
          points: { show: !measure.bars, size: 6, fill: colour },
          ...(paths === undefined ? {} : { paths, fill: colour }),
        };
      }),
    ],
    hooks: { setCursor: [(plot) => point(plot.cursor.left === undefined || plot.cursor.left < 0 ? null : (plot.cursor.idx ?? null))] },
  };
}

function reading(day: [number, Figures | null] | undefined, measure: Measure): string {
  if (day === undefined) return "";
  const [time, figures] = day;
  if (figures === null) return `${dayName(time)}: no calls`;
  const said = measure.lines.map((line) => {
    const value = line.of(figures);
    return `${line.title} ${value === null ? "unknown" : measure.write(value)}`;
  });
  return `${dayName(time)}: ${said.join(", ")}`;
}

/** Return in words what the chart shows, for who does not see it. */
function summary(shown: [number, Figures | null][], measure: Measure): string {
  const [line] = measure.lines;
  let most: [number, number] | null = null;
  for (const [time, figures] of shown) {
    const value = figures === null ? null : (line?.of(figures) ?? null);
    if (value !== null && (most === null || value > most[1])) most = [time, value];
  }
  if (line === undefined || most === null) return `${measure.title}: unknown on every day`;
  return `${line.title}: most on ${dayName(most[0])}, ${measure.write(most[1])}. Days are in UTC.`;
}
