"use strict";
// Values at the pointer, at a finger and by arrow keys. Without this script browsers show the same texts as titles.
(() => {
  const tip = document.getElementById("tip");
  const marks = new Map();
  let current = null;

  for (const drawing of document.querySelectorAll("svg.drawing")) {
    const found = [...drawing.querySelectorAll(".mark")];
    for (const mark of found) {
      const title = mark.querySelector("title");
      mark.dataset.tip = title.textContent;
      title.remove();
    }
    if (found.length) marks.set(drawing, found);
  }

  const centre = (mark) => {
    const box = mark.querySelector(".dot, .bar").getBoundingClientRect();
    const end = mark.querySelector(".bar") ? box.right : (box.left + box.right) / 2;
    return [end, (box.top + box.bottom) / 2];
  };

  const hide = () => {
    current?.classList.remove("current");
    current = null;
    tip.hidden = true;
  };

  const show = (mark) => {
    if (mark !== current) {
      hide();
      current = mark;
      mark.classList.add("current");
      tip.textContent = mark.dataset.tip;
      tip.hidden = false;
    }
    const [x, y] = centre(mark);
    const width = tip.offsetWidth, height = tip.offsetHeight;
    const right = document.documentElement.clientWidth - width - 8;
    tip.style.left = `${Math.max(8, Math.min(x - width / 2, right))}px`;
    tip.style.top = `${y - height - 14 < 4 ? y + 16 : y - height - 14}px`;
  };

  const nearest = (drawing, event) => {
    let best = null, least = Infinity;
    for (const mark of marks.get(drawing)) {
      const [x, y] = centre(mark);
      const distance = (x - event.clientX) ** 2 + ((y - event.clientY) / 2) ** 2;
      if (distance < least) [best, least] = [mark, distance];
    }
    return best;
  };

  for (const [drawing, found] of marks) {
    const follow = (event) => show(nearest(drawing, event));
    drawing.addEventListener("pointermove", follow);
    drawing.addEventListener("pointerdown", follow);
    drawing.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hide());
    drawing.addEventListener("focus", () => drawing.matches(":focus-visible") && show(found[0]));
    drawing.addEventListener("blur", hide);
    drawing.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") hide();
      if (!step) return;
      event.preventDefault();
      const at = found.indexOf(current);
      show(found[at < 0 ? 0 : (at + step + found.length) % found.length]);
    });
  }
  // what the keyboard has chosen moves along, also when focus itself scrolls
  const scrolled = () => current?.closest("svg.drawing") === document.activeElement ? show(current) : hide();
  addEventListener("scroll", scrolled, { passive: true, capture: true });
  addEventListener("beforeprint", () => {
    hide();
    for (const part of document.querySelectorAll("details")) part.open = true;
  });
})();
