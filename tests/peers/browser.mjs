// Looks at a page in Chromium, as `tests/pages.rs` asks: what is shown, what goes wrong, and whether a person
// can read it. The request is a JSON object in the first argument, the answer one on standard output.
//
//   { "playwright": "…/playwright-core", "chromium": "/usr/bin/chromium", "url": "…",
//     "until": "an expression that is true once the page shows what is awaited",
//     "click": "a selector, clicked then" or null, "widths": [1280, 390], "schemes": ["light", "dark"] }

import { createRequire } from "node:module";

const asked = JSON.parse(process.argv[2]);
const { chromium } = createRequire(import.meta.url)(asked.playwright);

// In the page: how far it is wider than its window, and text whose contrast is less than 4.5 : 1, the least
// for body text (WCAG 2.2, 1.4.3).
function read() {
  const channels = colour => (colour.match(/[\d.]+/g) ?? []).map(Number);
  const luminance = ([r, g, b]) => {
    const linear = [r, g, b].map(c => c / 255).map(c => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const ground = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = channels(getComputedStyle(e).backgroundColor);
      if ((colour[3] ?? 1) > 0.99) return colour;
    }
    return matchMedia("(prefers-color-scheme: dark)").matches ? [18, 18, 18] : [255, 255, 255];
  };
  const faint = new Set();
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement, text = texts.currentNode.textContent.trim();
    const style = getComputedStyle(element);
    const painted = element instanceof SVGElement ? style.fill : style.color;
    if (!text || !element.checkVisibility() || painted === "none") continue;
    const pair = [luminance(channels(painted)), luminance(ground(element))].sort((a, b) => b - a);
    const contrast = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (contrast < 4.5) faint.add(`${text.slice(0, 40)}: ${contrast.toFixed(2)}`);
  }
  const root = document.documentElement;
  return { text: document.body.innerText, overflow: root.scrollWidth - root.clientWidth, faint: [...faint] };
}

const browser = await chromium.launch({
  executablePath: asked.chromium,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});
const views = [];
try {
  for (const width of asked.widths) {
    for (const scheme of asked.schemes) {
      const context = await browser.newContext({ viewport: { width, height: 800 }, colorScheme: scheme });
      const page = await context.newPage();
      const errors = [], foreign = [];
      page.on("console", said => { if (said.type() === "error") errors.push(said.text()); });
      page.on("pageerror", error => errors.push(String(error)));
      page.on("request", request => {
        const to = new URL(request.url());
        if (to.host !== new URL(asked.url).host && to.protocol !== "data:") foreign.push(request.url());
      });
      await page.goto(asked.url);
      await page.waitForFunction(asked.until);
      if (asked.click) await page.click(asked.click);
      views.push({ width, scheme, errors, foreign, ...await page.evaluate(read) });
      if (asked.picture) await page.screenshot({ path: `${asked.picture}-${width}-${scheme}.png`, fullPage: true });
      await context.close();
    }
  }
} finally {
  await browser.close();
}
console.log(JSON.stringify(views));
