// Bundles the viewer into libs/page and writes the licences of what is in it. Same inputs, same bytes.
import { readFileSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const target = process.argv[2] ?? new URL("../../libs/page/src/sn17_page/static/vendor/", import.meta.url).pathname;
const lock = JSON.parse(readFileSync(new URL("package-lock.json", import.meta.url)));
const result = await build({
  entryPoints: [new URL("viewer.js", import.meta.url).pathname],
  bundle: true,
  format: "esm",
  minify: true,
  legalComments: "none",
  metafile: true,
  outfile: `${target}splat-viewer.js`,
});
const packages = new Set(
  Object.keys(result.metafile.inputs)
    .filter((path) => path.includes("node_modules/"))
    .map((path) => path.split("node_modules/").pop().split("/"))
    .map(([first, second]) => (first.startsWith("@") ? `${first}/${second}` : first)),
);
const texts = [...packages].sort().map((name) => {
  const folder = new URL(`node_modules/${name}/`, import.meta.url);
  const { version, license } = JSON.parse(readFileSync(new URL("package.json", folder)));
  if (lock.packages[`node_modules/${name}`].version !== version) throw new Error(`${name} is not the locked version`);
  return `${name} ${version} (${license})\n\n${readFileSync(new URL("LICENSE", folder), "utf8").trim()}\n`;
});
writeFileSync(`${target}LICENSES.txt`, texts.join("\n" + "=".repeat(78) + "\n\n"));
