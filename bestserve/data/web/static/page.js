"use strict";
// Stands before htmx on the page, so that it hears of the first request.
// What htmx does not do: sliders that move a number in a text, the history, what is out of date,
// copying, dropped files, and a server that is gone for a while.
(function () {
  const byId = (id) => document.getElementById(id);
  const form = () => byId("problem");
  let asked = null; // the query that is being answered, or was answered last
  let answered = false;
  let lost = 0;

  // --- sliders: a share of a logarithmic scale, and the number in the field's text ---

  function pattern(slider) {
    const part = slider.dataset.part;
    return part ? new RegExp(`(${part}\\s*[:=]\\s*)([0-9.]+)(ms|s)?`, "i") : /()([0-9.]+)/;
  }

  function textOf(slider) {
    const field = byId(slider.dataset.of);
    return field.value.trim() || field.placeholder;
  }

  function show(slider) {
    const found = textOf(slider).match(pattern(slider));
    if (!found) { return; }
    const value = Number(found[2]) * (found[3] === "s" ? 1000 : 1);
    const low = Number(slider.dataset.low), high = Number(slider.dataset.high);
    slider.value = String(Math.round(100 * Math.log(value / low) / Math.log(high / low)));
    slider.setAttribute("aria-valuetext", String(value));
  }

  function move(slider) {
    const low = Number(slider.dataset.low), high = Number(slider.dataset.high);
    const exact = low * Math.pow(high / low, Number(slider.value) / 100);
    const step = Math.pow(10, Math.max(Math.floor(Math.log10(exact)) - 1, 0));
    const value = Math.round(exact / step) * step;
    const text = textOf(slider);
    const field = byId(slider.dataset.of);
    field.value = pattern(slider).test(text)
      ? text.replace(pattern(slider), (_, before) => before + value)
      : `${text} ${slider.dataset.part}:${value}`.trim();
    slider.setAttribute("aria-valuetext", String(value));
    sliders(field.id).forEach((other) => { if (other !== slider) { show(other); } });
  }

  function sliders(id) {
    return document.querySelectorAll(id ? `.slider[data-of="${id}"]` : ".slider");
  }

  // in front of htmx, which reads the form in the same event
  document.addEventListener("input", function (event) {
    if (event.target.matches(".slider")) { move(event.target); }
    if (event.target.matches(".typed")) { sliders(event.target.id).forEach(show); }
  }, true);

  function dress() {
    document.querySelectorAll(".sliding, .copies, .long").forEach((e) => { e.hidden = false; });
    sliders().forEach(show);
  }

  // --- one question at a time: its address, and what is out of date until it is answered ---

  function state(text) { byId("status").textContent = text; }

  function stale() {
    document.querySelectorAll("#now .panel, .result, #brief").forEach(function (panel) {
      panel.dataset.stale = "true";
      panel.setAttribute("aria-busy", "true");
    });
  }

  function address(query, event) {
    const url = query ? `/?${query}` : "/";
    if (event.type === "load" || location.pathname + location.search === url) { return; }
    const sliding = event.type === "input" && event.target && event.target.matches(".slider");
    if (sliding) {
      history.replaceState({ htmx: true }, "", url);
    } else {
      history.pushState({ htmx: true }, "", url);
    }
  }

  document.addEventListener("htmx:config:request", function (event) {
    const ctx = event.detail.ctx;
    const body = ctx.request.body;
    for (const [name, text] of [...body]) {
      if (typeof text === "string" && !text.trim()) { body.delete(name); }
    }
    if (ctx.sourceElement.matches(".longer")) { begun(ctx.sourceElement); }
    if (ctx.sourceElement !== form()) { return; }
    const query = new URLSearchParams(body).toString();
    if (query === asked && ctx.sourceEvent.type !== "load" && ctx.sourceEvent.type !== "again") {
      event.preventDefault();
      return;
    }
    if (asked !== null || ctx.sourceEvent.type !== "load") { address(query, ctx.sourceEvent); }
    asked = query;
    const leaders = byId("ranking").dataset.leaders;
    if (leaders) { body.append("keep", leaders.trim()); }
    answered = false;
    performance.mark("asked");
    stale();
    state("asking …");
    byId("progress").textContent = "";
    byId("stop").hidden = false;
  });

  function begun(longer) {
    longer.querySelector(".progress").textContent = "asking …";
    longer.querySelector(".halt").hidden = false;
  }

  function ended(longer, text) {
    longer.querySelector(".progress").textContent = text;
    longer.querySelector(".halt").hidden = true;
  }

  function settled(text) {
    answered = true;
    state(text);
    byId("progress").textContent = "";
    byId("stop").hidden = true;
  }

  document.addEventListener("found", function (event) {
    if (event.target !== form()) { return; }
    if (!answered) { performance.measure(event.detail.data, "asked"); }
    if (event.detail.data === "first") {
      state("answered by formulas; simulating the leaders …");
    }
  });
  document.addEventListener("done", function (event) {
    if (event.target === form()) { settled("answered, leaders held to simulation"); }
    if (event.target.matches(".longer")) { ended(event.target, ""); }
  });
  document.addEventListener("refused", function (event) {
    if (event.target !== form()) { return; }
    settled("not answered: see the form");
  });

  document.addEventListener("htmx:sse:after:message", function (event) {
    if (event.target !== form()) { return; }
    form().querySelectorAll(".field").forEach(function (field) {
      const wrong = field.querySelector(".error").textContent !== "";
      const control = field.querySelector("input, select");
      if (wrong) { control.setAttribute("aria-invalid", "true"); } else { control.removeAttribute("aria-invalid"); }
    });
  });

  // --- a server that is gone: say so, and ask again when it is back ---

  function gone() {
    if (lost || answered) { return; }
    byId("stop").hidden = true;
    state("the server does not answer: what is shown is out of date; asking again when it is back");
    lost = setInterval(function () {
      fetch("/ready").then(function (response) {
        if (!response.ok) { return; }
        clearInterval(lost);
        lost = 0;
        htmx.trigger(form(), "again");
      }).catch(() => {});
    }, 1500);
  }

  document.addEventListener("htmx:sse:close", function (event) {
    if (event.target.matches(".longer") && event.target.querySelector(".halt").hidden === false) {
      ended(event.target, "no longer answered");
    }
    const cut = event.detail.connection.abortController.signal.aborted; // by the next question
    if (event.target === form() && event.detail.reason === "ended" && !cut) { gone(); }
  });
  document.addEventListener("htmx:error", function (event) {
    const ctx = event.detail.ctx;
    if (ctx && ctx.sourceElement === form() && !ctx.request.signal.aborted) { gone(); }
  });

  // --- buttons and files ---

  document.addEventListener("click", function (event) {
    const button = event.target.closest("button");
    if (!button) { return; }
    if (button.id === "stop") {
      htmx.trigger(form(), "htmx:abort");
      settled("stopped; greyed parts are out of date");
      asked = null;
    }
    if (button.matches(".halt")) {
      const longer = button.closest(".longer");
      htmx.trigger(longer, "htmx:abort");
      ended(longer, "stopped");
    }
    if (button.matches(".copies")) {
      navigator.clipboard.writeText(byId(button.dataset.of).textContent).then(function () {
        const before = button.textContent;
        button.textContent = "Copied";
        setTimeout(() => { button.textContent = before; }, 1500);
      });
    }
  });

  // A file dropped on a panel is for its own question; elsewhere it is a problem.
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", function (event) {
    event.preventDefault();
    if (!event.dataTransfer.files.length) { return; }
    const panel = event.target.closest(".long");
    const field = (panel && panel.querySelector("input[type=file]")) || byId("file");
    field.files = event.dataTransfer.files;
    field.form.requestSubmit();
  });

  document.addEventListener("DOMContentLoaded", dress);
  document.addEventListener("htmx:after:history:restore", dress);
  document.addEventListener("htmx:after:swap", () => { if (byId("stop")) { dress(); } });
})();
