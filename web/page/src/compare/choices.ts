import { type Answer, useAnswer } from "../answer";

/** What can be compared: a chain, or one of its targets. */
export interface Choice {
  id: string;
  chain: string;
  /** The index of the target; null for the first that can answer. */
  target: number | null;
  label: string;
}

interface Found {
  chains: { name: string; task: string; model: string; targets: { index: number; target: string }[] }[];
}

/** Return what the server knows of its chains and targets, without asking any of them. */
export function useChains(): [Answer<Found>, () => void] {
  return useAnswer<Found>("ui/health");
}

/** Return the choices of a task: each chain, and each target of those that have several. */
export function choicesOf(found: Found, task: string): Choice[] {
  return found.chains
    .filter((chain) => chain.task === task)
    .flatMap((chain) => {
      const targets = chain.targets.length > 1 ? chain.targets : [];
      return [
        { id: chain.name, chain: chain.name, target: null, label: `${chain.name} · ${targets.length > 0 ? "first that answers" : (chain.targets[0]?.target ?? chain.model)}` },
        ...targets.map(({ index, target }) => ({ id: `${chain.name}#${index}`, chain: chain.name, target: index, label: `${chain.name} · ${index + 1}. ${target}` })),
      ];
    });
}

/** Return the choices of ids, where those that are gone or were never made are replaced by what is not chosen yet. */
export function chosenOf(choices: Choice[], ids: string[]): Choice[] {
  // Single targets and whole chains of one differ from each other; a chain and its own first target often do not.
  const apart = choices.filter((each) => each.target !== null || !choices.some((other) => other.chain === each.chain && other.target !== null));
  const free = [...apart, ...choices].filter((each) => !ids.includes(each.id));
  const found: Choice[] = [];
  for (const id of ids) {
    const choice = choices.find((each) => each.id === id) ?? free.shift() ?? choices[0];
    if (choice !== undefined) found.push(choice);
  }
  return found;
}
