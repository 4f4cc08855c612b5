import { defineConfig } from "vite";
import { licenses } from "./scripts/licenses.mjs";

// Nothing of the machine or the time goes into the output: the same source gives the same bytes.
export default defineConfig({
  base: "./",
  plugins: [licenses()],
  build: {
    outDir: process.env.PAGE_OUT ?? "dist",
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  server: { proxy: { "^/(v1|admin|ui/session|ui/health|livez|version)": "http://127.0.0.1:8080" } },
});
