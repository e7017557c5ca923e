// What is measured inside of a page. Each function is sent to the browser, so it stands alone, and
// gives a list of complaints.

/** Texts whose contrast to what lies behind them is below 4.5:1, or 3:1 if they are large (WCAG 1.4.3). */
export function contrast() {
  const parse = (text) => {
    const numbers = (text.match(/[\d.]+(e-?\d+)?/g) ?? []).map(Number);
    if (text.startsWith("color(srgb")) return [...numbers.slice(0, 3).map((n) => n * 255), numbers[3] ?? 1];
    return numbers.length < 3 ? [0, 0, 0, 0] : [...numbers.slice(0, 3), numbers[3] ?? 1];
  };
  const over = (top, below) => {
    const [a, b] = [top[3], below[3] * (1 - top[3])];
    const mixed = [0, 1, 2].map((i) => (a + b ? (top[i] * a + below[i] * b) / (a + b) : 0));
    return [...mixed, a + b];
  };
  const luminance = (color) => {
    const [r, g, b] = color.slice(0, 3).map((n) => n / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (one, other) => {
    const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
  };
  // Colours that lie behind an element, the nearest first, until one is opaque.
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      if (at instanceof SVGElement && !(at instanceof SVGSVGElement)) continue;
      const layer = parse(getComputedStyle(at).backgroundColor);
      if (layer[3] > 0) layers.push(layer);
      if (layer[3] === 1) break;
    }
    return [...layers, [255, 255, 255, 1]].reduceRight((below, top) => over(top, below));
  };
  // In a drawing: the last shape before the text that lies under its middle.
  const behindInDrawing = (text) => {
    const box = text.getBBox();
    const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
    let color = behind(text.ownerSVGElement);
    for (const shape of text.ownerSVGElement.querySelectorAll("rect, circle")) {
      if (shape.compareDocumentPosition(text) & Node.DOCUMENT_POSITION_PRECEDING) continue;
      const b = shape.getBBox();
      const fill = getComputedStyle(shape).fill;
      const inside = x >= b.x && x <= b.x + b.width && y >= b.y && y <= b.y + b.height;
      if (inside && fill !== "none") color = over(parse(fill), color);
    }
    return color;
  };
  const complaints = new Map();
  const check = (element, style, color, words) => {
    const back = element instanceof SVGTextElement ? behindInDrawing(element) : behind(element);
    let opacity = 1;
    for (let at = element; at; at = at.parentElement) opacity *= getComputedStyle(at).opacity;
    const front = over([...color.slice(0, 3), color[3] * opacity], back);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    const measured = ratio(front, back);
    if (measured >= (large ? 3 : 4.5) - 0.005) return;
    const where = `${element.tagName.toLowerCase()}.${[...element.classList].join(".")}`;
    complaints.set(`${where} ${measured.toFixed(2)}`,
      `${measured.toFixed(2)}:1 for ${where} "${words.trim().slice(0, 40)}"`);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const seen = new Set();
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || seen.has(element)) continue;
    seen.add(element);
    if (["SCRIPT", "STYLE", "NOSCRIPT", "TITLE"].includes(element.tagName)) continue;
    if (!element.checkVisibility({ visibilityProperty: true, opacityProperty: true })) continue;
    const rect = element.getBoundingClientRect();
    if (rect.width <= 1 || rect.height <= 1) continue;
    const style = getComputedStyle(element);
    check(element, style, parse(element instanceof SVGElement ? style.fill : style.color), node.data);
  }
  for (const element of document.querySelectorAll("main *")) {
    const style = getComputedStyle(element, "::before");
    const words = style.content.replace(/^"|"$/g, "");
    const isText = words && words !== "none" && words !== "normal" && !words.startsWith("url(");
    if (!isText || !element.checkVisibility()) continue;
    check(element, style, parse(style.color), words);
  }
  return [...complaints.values()];
}

/** What is wider than the screen: only code and tables may be, and scroll within themselves. */
export function overflow() {
  const may = ".table-wrapper, pre, pre > code, #mdbook-sidebar, .sidebar-scrollbox";
  const shown = (element) => `${element.tagName.toLowerCase()}.${[...element.classList].join(".")}`;
  const complaints = [];
  if (document.documentElement.scrollWidth > innerWidth) {
    complaints.push(`the page is ${document.documentElement.scrollWidth} wide on a screen of ${innerWidth}`);
  }
  for (const element of document.querySelectorAll("#mdbook-content, main, main *")) {
    if (!element.checkVisibility() || element instanceof SVGElement) continue;
    const { overflowX } = getComputedStyle(element);
    const scrolls = ["auto", "scroll"].includes(overflowX);
    if (scrolls && element.scrollWidth > element.clientWidth + 1 && !element.matches(may)) {
      complaints.push(`${shown(element)} scrolls sideways`);
    }
    const { right, width, left } = element.getBoundingClientRect();
    if (width > 1 && (right > innerWidth + 1 || left < -1) && !element.closest(may)) {
      complaints.push(`${shown(element)} ends at ${Math.round(right)}: "${element.textContent.slice(0, 40)}"`);
    }
  }
  return complaints.slice(0, 5);
}

/** Drawings whose text is too small, leaves its frame, or lies on another. */
export function drawings() {
  const complaints = [];
  for (const svg of document.querySelectorAll("main svg[role=img]")) {
    const name = svg.querySelector("title")?.textContent;
    const { width, height } = svg.viewBox.baseVal;
    const scale = svg.getBoundingClientRect().width / width;
    const frames = [...svg.querySelectorAll("rect")].map((rect) => rect.getBBox());
    const texts = [...svg.querySelectorAll("text")].map((text) => [text, text.getBBox()]);
    const complain = (what, text) => complaints.push(`${name}: ${what}: ${text.textContent}`);
    texts.forEach(([text, box], index) => {
      const right = box.x + box.width;
      const middle = box.y + box.height / 2;
      if (parseFloat(getComputedStyle(text).fontSize) * scale < 11) complain("below 11 pixels", text);
      if (box.x < 0 || right > width || box.y < 0 || box.y + box.height > height) complain("cut off", text);
      const around = frames.filter((f) =>
        box.x >= f.x - 0.5 && box.x < f.x + f.width && middle > f.y && middle < f.y + f.height);
      const frame = around.sort((a, b) => a.width * a.height - b.width * b.height)[0];
      if (frame && right > frame.x + frame.width - 2) complain("leaves its frame", text);
      for (const [other, o] of texts.slice(index + 1)) {
        const apart = box.x >= o.x + o.width || o.x >= right ||
          box.y + 2 >= o.y + o.height - 2 || o.y + 2 >= box.y + box.height - 2;
        if (!apart) complain(`lies on "${other.textContent}"`, text);
      }
    });
  }
  return complaints;
}

/** What a screen reader would stumble over. */
export function names() {
  const complaints = [];
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  const twice = ids.filter((id, index) => ids.indexOf(id) !== index);
  if (twice.length) complaints.push(`ids that are there twice: ${[...new Set(twice)].join(" ")}`);
  const headings = document.querySelectorAll("main h1").length;
  if (headings !== 1) complaints.push(`${headings} first-level headings`);
  if (!document.documentElement.lang) complaints.push("no language");
  const named = (element) =>
    element.getAttribute("aria-label") || element.title || element.textContent.trim() ||
    element.labels?.[0]?.textContent.trim() || element.alt ||
    (element.getAttribute("aria-labelledby") ?? "").split(" ")
      .map((id) => document.getElementById(id)?.textContent ?? "").join("").trim();
  const wanted = "main a, main button, main summary, main input, main img, main svg[role=img], main [role=group]";
  for (const element of document.querySelectorAll(wanted)) {
    if (!named(element)) complaints.push(`no name: ${element.outerHTML.slice(0, 80)}`);
  }
  for (const id of document.querySelectorAll("main [aria-labelledby]")) {
    for (const one of id.getAttribute("aria-labelledby").split(" ")) {
      if (!document.getElementById(one)) complaints.push(`aria-labelledby="${one}" leads nowhere`);
    }
  }
  return complaints;
}
