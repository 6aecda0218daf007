// The button beside a command. Included where `all` and the rest of a page are.
async function copy(button) {
  const code = button.previousElementSibling;
  let done = true;
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch (refused) {
    const range = document.createRange();
    range.selectNodeContents(code);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    done = document.execCommand("copy");  // it is selected in any case
  }
  button.textContent = done ? "copied" : "Ctrl+C";
  setTimeout(() => { button.textContent = "copy"; }, 1500);
}
document.addEventListener("click", (event) => {
  const button = event.target.closest(".copy");
  if (button) copy(button);
});
