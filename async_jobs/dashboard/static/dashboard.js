// Keeps pages fresh and counts what is chosen. Everything works without it.

const main = document.querySelector("main");
const seconds = Number(main.dataset.live);

function isInUse() {
  return document.hidden || main.querySelector("details[open]") || main.contains(document.activeElement?.closest("input, select, textarea"));
}

async function refresh() {
  if (isInUse()) return;
  const answer = await fetch(location.href, { credentials: "same-origin" }).catch(() => null);
  if (!answer || answer.redirected || isInUse()) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.querySelector("main");
  if (fresh) main.replaceChildren(...fresh.childNodes);
}

if (seconds > 0) setInterval(refresh, 1000 * seconds);

function count() {
  const boxes = [...main.querySelectorAll("tbody input[type=checkbox]")];
  const shown = main.querySelector("[data-chosen]");
  if (shown) shown.textContent = `${boxes.filter((box) => box.checked).length} chosen`;
  return boxes;
}

main.addEventListener("change", count);
main.addEventListener("click", (event) => {
  if (!event.target.closest("[data-choose]")) return;
  const boxes = count();
  const all = boxes.every((box) => box.checked);
  for (const box of boxes) box.checked = !all;
  count();
});
count();
