// The page is complete without this script; with it, the page follows the GPUs: each tick fetches it again and swaps the
// content, keeping what is unfolded and where the reader is.
(() => {
  if (!window.EventSource) return;
  let busy = false;
  const live = document.getElementById("live");
  const refresh = async () => {
    if (busy || document.hidden) return;
    busy = true;
    try {
      const text = await (await fetch(location.pathname)).text();
      const next = new DOMParser().parseFromString(text, "text/html").querySelector("main");
      const open = new Set([...document.querySelectorAll("details[open]")].map((it) => it.id));
      next.querySelectorAll("details").forEach((it) => { it.open = open.has(it.id); });
      document.querySelector("main").replaceWith(next);
      live.textContent = "live";
    } catch {
      live.textContent = "the agent does not answer; the values are old";
    } finally {
      busy = false;
    }
  };
  const events = new EventSource("/v1/stream");
  events.addEventListener("gpus", refresh);
  events.addEventListener("error", () => { live.textContent = "reconnecting; the values may be old"; });
  setInterval(() => { if (events.readyState !== 1) refresh(); }, 5000);
})();
