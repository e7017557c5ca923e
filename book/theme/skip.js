// A link past the table of contents, for who reads by keyboard.
(() => {
  const text = document.querySelector("main");
  const link = document.createElement("a");
  link.className = "skip";
  link.href = "#text";
  link.textContent = "Skip to the text";
  text.id ||= "text";
  text.tabIndex = -1;
  link.addEventListener("click", (event) => {
    event.preventDefault();
    text.focus();
  });
  document.body.prepend(link);
})();
