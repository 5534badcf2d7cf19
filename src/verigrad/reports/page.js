// Sorts and filters the table of samples. Its state lives in the address (#samples?show=later&sort=margin&dir=up),
// so that a view can be sent to somebody else. Without this script the table shows every sample in order.
"use strict";
(() => {
  const table = document.getElementById("table");
  if (!table) return;
  const form = document.querySelector("form.tools");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const texts = rows.map((row) => [...row.cells].map((cell) => cell.textContent.trim()));
  const state = { show: "", find: "", sort: "sample", dir: "up" };

  const number = (text) => Number.parseFloat(text.replace("−", "-"));
  const numeric = heads.map((head) => head.classList.contains("n"));

  const compare = (column, sign) => (a, b) => {
    const [left, right] = [texts[a][column], texts[b][column]];
    if (left === "—" || right === "—") return (left === "—") - (right === "—") || a - b; // what is missing comes last
    const order = numeric[column] ? number(left) - number(right) : left.localeCompare(right, "en", { numeric: true });
    return sign * order || a - b;
  };

  // "label = 3" looks into one column, anything else into all.
  const matcher = (find) => {
    const exact = /^(.+?)\s*=\s*(.+)$/.exec(find);
    const column = exact ? heads.findIndex((head) => head.dataset.key === exact[1] || head.textContent.trim() === exact[1]) : -1;
    if (column >= 0) return (cells) => cells[column].toLowerCase() === exact[2];
    return (cells) => cells.some((text) => text.toLowerCase().includes(find));
  };

  const draw = () => {
    const column = Math.max(heads.findIndex((head) => head.dataset.key === state.sort), 0);
    const fits = matcher(state.find.trim().toLowerCase());
    const kept = rows.map((_, i) => i).filter((i) => (!state.show || rows[i].className === state.show) && fits(texts[i]));
    kept.sort(compare(column, state.dir === "down" ? -1 : 1));
    body.replaceChildren(...kept.map((i) => rows[i]));
    heads.forEach((head, i) => {
      if (i === column) head.setAttribute("aria-sort", state.dir === "down" ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    form.show.value = state.show;
    if (form.find.value !== state.find) form.find.value = state.find;
    form.querySelector("output").textContent = `${kept.length} of ${rows.length} samples`;
  };

  const remember = () => {
    const query = new URLSearchParams(Object.entries(state).filter(([, value]) => value));
    history.replaceState(null, "", `#samples?${query}`);
    draw();
  };

  const recall = () => {
    const [place, query] = location.hash.split("?");
    if (place !== "#samples" || query === undefined) return;
    const given = new URLSearchParams(query);
    for (const key of Object.keys(state)) if (given.has(key)) state[key] = given.get(key);
    draw();
    document.getElementById("samples").scrollIntoView();
  };

  for (const head of heads) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      state.dir = state.sort === head.dataset.key && state.dir === "up" ? "down" : "up";
      state.sort = head.dataset.key;
      remember();
    });
  }
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    state.show = form.show.value;
    state.find = form.find.value;
    remember();
  });
  addEventListener("hashchange", recall);
  draw();
  recall();
})();
