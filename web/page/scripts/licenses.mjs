import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";

/** Licences whose text may be carried in the package; another one is a decision for a person. */
const ALLOWED = new Set(["MIT", "ISC", "0BSD", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0"]);

/**
 * Write THIRD_PARTY_LICENSES.txt beside the bundle: the licence of every package of the lock that is not for development alone.
 * The build fails on a licence that is not in the list, and on a package without a text.
 */
export function licenses() {
  return {
    name: "third-party-licenses",
    generateBundle() {
      this.emitFile({ type: "asset", fileName: "THIRD_PARTY_LICENSES.txt", source: licenceText(process.cwd()) });
    },
  };
}

/** Return the file's text for the lock in a folder. */
export function licenceText(folder) {
  const lock = JSON.parse(readFileSync(join(folder, "package-lock.json"), "utf8"));
  const carried = Object.entries(lock.packages).filter(([place, one]) => place !== "" && !one.dev && !one.optional);
  const parts = carried.sort(([one], [other]) => (one < other ? -1 : 1)).map(([place, { version, license }]) => {
    const name = place.replace(/^.*node_modules\//, "");
    if (!ALLOWED.has(license)) {
      throw new Error(`${name} ${version} has the licence ${license}, which is not in the list of scripts/licenses.mjs`);
    }
    const at = join(folder, place);
    const files = existsSync(at) ? readdirSync(at).filter((file) => /^licen[cs]e/i.test(file)).sort() : [];
    if (files.length === 0) throw new Error(`${name} ${version} has no file with its licence`);
    const text = readFileSync(join(at, files[0]), "utf8").replaceAll("\r\n", "\n").trim();
    return `${name} ${version} (${license})\n\n${text}\n`;
  });
  return `The page contains these packages.\n\n${parts.join(`\n${"-".repeat(80)}\n\n`)}`;
}
