"use strict";
(() => {
  const make = (name, text, parent) => {
    const made = document.createElement(name);
    made.textContent = text;
    if (parent) parent.append(made);
    return made;
  };

  // Long tables, a page at a time.
  for (const box of document.querySelectorAll(".table[data-rows]")) {
    const rows = [...box.querySelectorAll("tbody > tr")];
    const size = Number(box.dataset.rows);
    const pages = Math.ceil(rows.length / size);
    const pager = make("div", "");
    pager.className = "pager";
    const back = make("button", "Previous", pager);
    const where = make("span", "", pager);
    const on = make("button", "Next", pager);
    let shown = 0;
    const show = (page) => {
      shown = Math.min(Math.max(page, 0), pages - 1);
      rows.forEach((row, i) => { row.hidden = i < shown * size || i >= (shown + 1) * size; });
      where.textContent = `${shown * size + 1}–${Math.min((shown + 1) * size, rows.length)} of ${rows.length.toLocaleString("en")}`;
      back.disabled = shown === 0;
      on.disabled = shown === pages - 1;
    };
    back.addEventListener("click", () => show(shown - 1));
    on.addEventListener("click", () => show(shown + 1));
    box.after(pager);
    show(0);
  }

  // A large view of any picture, with the arrow keys through its gallery.
  const dialog = document.createElement("dialog");
  const stage = make("div", "", dialog);
  stage.className = "shot";
  const row = make("div", "", dialog);
  row.className = "row";
  const caption = make("figcaption", "", row);
  const buttons = make("div", "", row);
  let open = null;
  const view = (shot) => {
    if (!shot) return;
    open = shot;
    stage.replaceChildren(...[...shot.children].map((layer) => layer.cloneNode(true)));
    const text = shot.parentElement.querySelector("figcaption");
    caption.replaceChildren(...(text ? [...text.children].map((line) => line.cloneNode(true)) : []));
    if (!dialog.open) dialog.showModal();
  };
  const beside = (step) => {
    if (!open) return;
    const all = [...open.closest(".gallery").querySelectorAll(".shot:not(.missing)")];
    view(all[(all.indexOf(open) + step + all.length) % all.length]);
  };
  make("button", "Previous", buttons).addEventListener("click", () => beside(-1));
  make("button", "Next", buttons).addEventListener("click", () => beside(1));
  make("button", "Close", buttons).addEventListener("click", () => dialog.close());
  dialog.setAttribute("aria-label", "Large view");
  dialog.addEventListener("close", () => { if (open) open.focus(); });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  document.body.append(dialog);
  for (const shot of document.querySelectorAll(".gallery .shot:not(.missing)")) {
    shot.tabIndex = 0;
    shot.setAttribute("role", "button");
    shot.addEventListener("click", () => view(shot));
    shot.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      view(shot);
    });
  }

  const masks = document.getElementById("masks");
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "m" && masks) masks.checked = !masks.checked;
    if (!dialog.open) return;
    if (event.key === "ArrowLeft") beside(-1);
    if (event.key === "ArrowRight") beside(1);
  });
})();
