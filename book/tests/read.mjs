// Opens every page of the built book from its folder, light and dark, on a desktop and a phone, and
// then does what a reader does. It ends with a line "N passed, N failed".

import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { availableParallelism } from "node:os";
import { resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { chromium } from "playwright-core";
import { contrast, drawings, names, overflow } from "./in-page.mjs";
import { reader } from "./reader.mjs";

const BOOK = resolve(process.env.BOOK ?? fileURLToPath(new URL("../book", import.meta.url)));
const SHOTS = process.env.SHOTS;
const WIDTHS = { desktop: 1280, phone: 360 };
// Colours don't depend on the width: each is measured once, and the two that are shown by default twice.
const THEMES = { desktop: ["light", "navy", "coal", "ayu", "rust"], phone: ["light", "navy"] };
const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

const wanted = process.argv.slice(2);
const results = { passed: 0, failed: 0 };
const started = Date.now();

const tell = (name, complaints) => {
  if (complaints.length) {
    results.failed += 1;
    console.log(`FAILED ${name}\n${complaints.map((one) => `    ${one}\n`).join("")}`);
  } else {
    results.passed += 1;
  }
};

/** A page of the book that complains of errors and of requests to anywhere but its folder. */
async function open(browser, path, complaints, options = {}) {
  const context = await browser.newContext({ viewport: { width: WIDTHS.desktop, height: 900 }, ...options });
  const page = await context.newPage();
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complaints.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => complaints.push(`error: ${error.message}`));
  page.on("request", (request) => {
    const inside = request.url().startsWith(pathToFileURL(BOOK).href) || request.url().startsWith("data:");
    if (!inside) complaints.push(`a request to ${request.url()}`);
  });
  page.on("requestfailed", (request) => complaints.push(`not found: ${request.url()}`));
  page.setDefaultTimeout(30_000);
  await page.goto(`${pathToFileURL(BOOK).href}/${path}`);
  return page;
}

/** Everything that can be folded is open, so that it is looked at as well. */
const unfold = (page) =>
  page.evaluate(() => document.querySelectorAll("details").forEach((one) => (one.open = true)));

const choose = async (page, theme) => {
  await page.evaluate((theme) => document.getElementById(`mdbook-theme-${theme}`).click(), theme);
  // A theme's style sheet for code is loaded when it is chosen for the first time.
  await page.waitForFunction(() =>
    [...document.querySelectorAll("link[rel=stylesheet]")].every((one) => one.disabled || one.sheet));
  await page.evaluate(() => document.getAnimations().forEach((one) => one.finish()));
};

/** Runs a check of its own pages; what it throws is a complaint as well. */
async function run(browser, name, check) {
  const complaints = [];
  const contexts = [];
  const opened = async (path, options) => {
    const page = await open(browser, path, complaints, options);
    contexts.push(page.context());
    return page;
  };
  try {
    await check(opened, complaints);
  } catch (error) {
    complaints.push(error.message.split("\n").slice(0, 12).join("\n    "));
  }
  for (const context of contexts) await context.close();
  tell(name, complaints);
}

/** What can be measured on a page. */
const look = (path, device) => async (open, complaints) => {
  const page = await open(path, { viewport: { width: WIDTHS[device], height: 900 } });
  await unfold(page);
  const measure = async (name, check) =>
    complaints.push(...(await page.evaluate(check)).map((one) => `${name}: ${one}`));
  // All pages in one, whose colours have been measured on each.
  const isAll = path === "print.html";
  for (const theme of isAll ? ["light"] : THEMES[device]) {
    await choose(page, theme);
    await measure(`${theme}, contrast`, contrast);
    if (SHOTS && ["light", "navy"].includes(theme) && !isAll) {
      const name = path.replace(".html", "").replaceAll("/", "-");
      await page.screenshot({ path: `${SHOTS}/${name}-${theme}-${device}.png`, fullPage: true });
    }
  }
  await measure("overflow", overflow);
  await measure("figure", drawings);
  if (!isAll) await measure("names", names);
};

/** Runs tasks, as many at once as there are processors here. */
async function all(tasks) {
  const worker = async () => {
    for (let task = tasks.shift(); task; task = tasks.shift()) await task();
  };
  await Promise.all(Array.from({ length: availableParallelism() }, worker));
}

if (!existsSync(`${BOOK}/index.html`)) {
  console.log(`there is no book in ${BOOK}: run mdbook build book`);
  process.exit(1);
}
if (SHOTS) mkdirSync(SHOTS, { recursive: true });
const fits = (name) => !wanted.length || wanted.some((part) => name.includes(part));
// toc.html is the table of contents for readers without JavaScript, a frame within the others.
const pages = readdirSync(BOOK, { recursive: true })
  .filter((path) => path.endsWith(".html") && !["toc.html", "404.html"].includes(path) && fits(path))
  .sort();
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: FLAGS });
const ofPages = pages.flatMap((path) =>
  Object.keys(WIDTHS).map((device) => [`${path} on a ${device}`, look(path, device)]));
const ofReader = Object.entries(reader).filter(([name]) => fits(name));
await all([...ofPages, ...ofReader].map(([name, check]) => () => run(browser, name, check)));
await browser.close();

const { passed, failed } = results;
const seconds = ((Date.now() - started) / 1000).toFixed(1);
console.log(
  `test result: ${failed ? "FAILED" : "ok"}. ${passed} passed; ${failed} failed; 0 ignored; ` +
  `${pages.length} pages, in ${seconds} s`);
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed || !passed ? 1 : 0);
