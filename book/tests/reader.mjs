// What a reader does: switch, answer, open hints, search, use the keyboard alone, print, have no JavaScript.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { contrast, overflow } from "./in-page.mjs";

const NAMESPACES = ["uts", "pid", "mnt", "user", "net", "ipc"];

/** The record that the explorer shows: see tests/tests/ladder/combinations.rs. */
const record = () => {
  const file = new URL("../../tests/tests/snapshots/combinations.snap", import.meta.url);
  return JSON.parse(readFileSync(file, "utf8").split("\n---\n")[1]);
};

/** What a card shows: per side, the values. */
const cards = (page) =>
  page.$$eval(".topic", (topics) =>
    topics.map((topic) =>
      [...topic.querySelectorAll(".outcome")].filter((one) => one.checkVisibility()).map((one) => ({
        effect: one.querySelector(".effect").textContent,
        sides: [...one.querySelectorAll("dl > div")].map((side) =>
          [...side.querySelectorAll("dd")].map((dd) => dd.textContent).join("; ")),
        marks: [...one.querySelectorAll("mark")].map((mark) => mark.textContent),
      }))));

export const reader = {
  "the explorer shows what was recorded, for all 64": async (open) => {
    const page = await open("explorer.html");
    for (const [name, topics] of Object.entries(record())) {
      const on = name === "none" ? [] : name.split("+");
      await page.$$eval(".explorer input", (all, on) =>
        all.forEach((one) => one.checked !== on.includes(one.value) && one.click()), on);
      (await cards(page)).forEach((outcomes, index) => {
        const [end, ...sides] = topics[NAMESPACES[index]];
        assert.equal(outcomes.length, 1, `${name}: ${NAMESPACES[index]} has one outcome`);
        const plain = (text) => text.replaceAll("RANDOM", "…").replaceAll("OUTSIDE", "100000");
        assert.deepEqual(outcomes[0].sides, sides.map(plain), name);
        if (end !== "done") assert.ok(outcomes[0].effect.includes(end), `${name}: ${end}`);
        if (name === "none") assert.deepEqual(outcomes[0].marks, [], "nothing differs from itself");
      });
    }
  },

  "the explorer is used by keyboard alone, and says what happens": async (open) => {
    const page = await open("explorer.html");
    const said = () => page.textContent(".explorer [aria-live]");
    assert.match(await said(), /No namespace.*6 reach the host/);
    await page.focus(".explorer button");
    let tabs = 0;
    const focused = () => page.evaluate(() => document.activeElement.value);
    while ((await focused()) !== "user" && tabs++ < 20) await page.keyboard.press("Tab");
    await page.keyboard.press("Space");
    assert.match(await said(), /^user\. .*1 reach the host, 0 stay inside, 5 refused/);
    const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.notEqual(outline, "none", "one sees where the keyboard is");
    assert.ok((await cards(page))[0][0].marks.includes("host"), "what differs is marked");
    await page.click(".explorer button:has-text('step 4')");
    assert.match(await said(), /^uts \+ pid \+ mnt \+ user\. /);
    assert.equal(await page.getAttribute("button:has-text('step 4')", "aria-pressed"), "true");
  },

  "without JavaScript the explorer is a list of all cases": async (open) => {
    const page = await open("explorer.html", { javaScriptEnabled: false });
    const outcomes = page.locator(".outcome");
    assert.ok((await outcomes.count()) > 12);
    for (const one of await outcomes.all()) {
      assert.ok(await one.isVisible());
      assert.ok(await one.locator(".condition").isVisible());
      assert.match(await one.locator(".condition").textContent(), /with/);
    }
    assert.ok(!(await page.isVisible(".explorer input")), "no switch that does nothing");
    assert.ok(!(await page.isVisible(".explorer button")));
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      assert.deepEqual(await page.evaluate(contrast), [], colorScheme);
    }
    const chapter = await open("step03.html", { javaScriptEnabled: false, colorScheme: "dark" });
    assert.deepEqual(await chapter.evaluate(contrast), []);
  },

  "a question's answers say why, by mouse and keyboard": async (open) => {
    const page = await open("step01.html");
    const question = page.locator(".question").first();
    const why = question.locator(".answer > div");
    assert.ok(!(await why.first().isVisible()), "the explanation is hidden at first");
    await question.locator("summary").first().click();
    assert.ok(await why.first().isVisible());
    await question.locator("summary").nth(1).focus();
    await page.keyboard.press("Enter");
    assert.ok(await why.nth(1).isVisible());
    assert.match(await why.nth(1).textContent(), /^(Right|No)\. \S/);
  },

  "hints open one by one": async (open) => {
    const page = await open("step01.html");
    const hint = page.locator(".exercise > .hint").first();
    const inner = hint.locator(".hint").first();
    assert.ok(!(await inner.isVisible()));
    await hint.locator("summary").first().click();
    assert.ok(await inner.locator("summary").first().isVisible(), "the next hint can be asked for");
    assert.ok(!(await inner.locator(":scope > :not(summary)").first().isVisible()), "but isn't open");
  },

  "search finds a page and marks the words": async (open) => {
    const page = await open("index.html");
    await page.keyboard.press("/");
    await page.waitForSelector("#mdbook-searchbar:focus");
    await page.keyboard.type("pivot_root", { delay: 5 });
    const found = page.locator("#mdbook-searchresults li a");
    await found.first().waitFor();
    assert.deepEqual(await page.evaluate(contrast), [], "the results can be read");
    assert.deepEqual(await page.evaluate(overflow), []);
    await found.first().click();
    await page.waitForSelector("main mark");
    assert.match(await page.textContent("main mark"), /pivot/i);
    assert.deepEqual(await page.evaluate(contrast), [], "the marks can be read");
  },

  "the keyboard turns pages and reaches the text": async (open) => {
    const page = await open("step01.html");
    await page.keyboard.press("ArrowRight");
    await page.waitForURL(/step02/);
    await page.keyboard.press("Tab");
    const skip = page.locator(":focus");
    assert.equal(await skip.textContent(), "Skip to the text");
    assert.ok((await skip.boundingBox()).y > 0, "it's seen once it has the focus");
    await page.keyboard.press("Enter");
    await page.keyboard.press("Tab");
    assert.ok(await page.evaluate(() => !!document.activeElement.closest("main")), "Tab gets into the text");
  },

  "the theme's menu switches to dark and remembers it": async (open) => {
    const page = await open("step01.html");
    await page.click("#mdbook-theme-toggle");
    assert.deepEqual(await page.evaluate(contrast), [], "the menu can be read");
    await page.click("#mdbook-theme-navy");
    await page.reload();
    assert.ok(await page.evaluate(() => document.documentElement.classList.contains("navy")));
  },

  "it prints on paper in one piece": async (open) => {
    const page = await open("step03.html");
    await page.click("#mdbook-theme-toggle");
    await page.click("#mdbook-theme-navy");
    await page.emulateMedia({ media: "print" });
    await page.setViewportSize({ width: 680, height: 960 }); // A4 less its margins.
    assert.ok(!(await page.isVisible("#mdbook-sidebar")));
    const paper = await page.$eval(".page-wrapper", (one) => getComputedStyle(one).backgroundColor);
    assert.equal(paper, "rgb(255, 255, 255)", "white, whatever the theme");
    const scheme = await page.evaluate(() => getComputedStyle(document.documentElement).colorScheme);
    assert.equal(scheme, "light", "or the margins would be black");
    assert.deepEqual(await page.evaluate(contrast), []);
    assert.deepEqual(await page.evaluate(overflow), []);
    const wide = await page.$$eval("main pre code", (all) => all.filter((c) => c.scrollWidth > c.clientWidth + 1).length);
    assert.equal(wide, 0, "no code is cut off");
    const explorer = await open("explorer.html");
    await explorer.emulateMedia({ media: "print" });
    for (const one of await explorer.locator(".outcome, .condition").all()) assert.ok(await one.isVisible());
  },
};
