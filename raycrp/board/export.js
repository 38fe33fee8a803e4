"use strict";
(() => {
  const data = JSON.parse(document.getElementById("board-data").textContent);
  const draw = (id, figure) => Plotly.react(id, figure.data, figure.layout, data.settings);
  const isShown = (id) => document.getElementById(id).offsetParent !== null;
  const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`)?.value;
  const drawSweep = () => {
    const figures = data.sweep[chosen("task")]?.[chosen("metric")] ?? {};
    for (const [id, figure] of Object.entries(figures)) if (isShown(id)) draw(id, figure);
  };
  const showTask = () => {
    // Made by raycrp from escaped text.
    for (const [id, html] of Object.entries(data.parts[chosen("task")] ?? {})) {
      document.getElementById(id).innerHTML = html;
    }
    drawSweep();
  };
  for (const [id, figure] of Object.entries(data.training)) if (isShown(id)) draw(id, figure);
  for (const input of document.querySelectorAll('input[name="task"]')) input.addEventListener("change", showTask);
  for (const input of document.querySelectorAll('input[name="metric"]')) input.addEventListener("change", drawSweep);
  drawSweep();
})();
