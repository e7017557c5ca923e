// The explorer: shows, of all outcomes in the page, those that fit the switches.
(() => {
  const explorer = document.getElementById("explorer");
  if (!explorer) return;
  const switches = [...explorer.querySelectorAll("input[type=checkbox]")];
  const presets = explorer.querySelector(".presets");
  const summary = explorer.querySelector(".summary");
  const outcomes = [...explorer.querySelectorAll(".outcome")];

  // "+uts -user|+net": one of the cases fits if each of its parts does.
  const fits = (when, on) =>
    when.split("|").some((one) =>
      one.split(" ").every((part) => on.has(part.slice(1)) === part.startsWith("+")));

  const show = () => {
    const on = new Set(switches.filter((one) => one.checked).map((one) => one.value));
    for (const outcome of outcomes) outcome.hidden = !fits(outcome.dataset.when, on);
    for (const button of presets.children) {
      button.setAttribute("aria-pressed", button.value === [...on].join(" "));
    }
    const count = (kind) =>
      outcomes.filter((one) => !one.hidden && one.classList.contains(kind)).length;
    summary.textContent =
      `${on.size ? [...on].join(" + ") : "No namespace of its own"}. Of six acts: ` +
      `${count("reaches")} reach the host, ${count("stays")} stay inside, ${count("refused")} refused.`;
  };

  presets.addEventListener("click", ({ target }) => {
    if (!target.matches("button")) return;
    const on = target.value.split(" ");
    for (const one of switches) one.checked = on.includes(one.value);
    show();
  });
  explorer.addEventListener("change", show);
  for (const one of switches) one.hidden = false;
  presets.hidden = summary.hidden = false;
  explorer.classList.add("live");
  show();
})();
