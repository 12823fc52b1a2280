// Keeps each episode's charts and camera images in step with its video. Without it the page still shows everything.
for (const episode of document.querySelectorAll(".episode")) {
  const video = episode.querySelector("video");
  const steps = JSON.parse(episode.dataset.steps);
  const views = episode.querySelectorAll(".view");
  const cursors = episode.querySelectorAll(".cursor");
  const plans = episode.querySelectorAll(".plan");
  let shown = -1;

  const show = () => {
    const step = video.currentTime * Number(episode.dataset.hz);
    for (const cursor of cursors) cursor.setAttribute("transform", `translate(${step} 0)`);
    let plan = 0;
    while (plan + 1 < steps.length && steps[plan + 1] <= step + 0.01) plan += 1;
    if (plan === shown) return;
    shown = plan;
    for (const path of plans) path.classList.toggle("now", Number(path.dataset.plan) === plan);
    for (const view of views) {
      const { columns, rows } = view.dataset;
      const column = plan % columns, row = Math.floor(plan / columns);
      view.style.backgroundPosition = `${(100 * column) / Math.max(1, columns - 1)}% ${(100 * row) / Math.max(1, rows - 1)}%`;
    }
  };
  const follow = () => {
    episode.classList.add("live");
    show();
    if (!video.paused && !video.ended) requestAnimationFrame(follow);
  };
  video.addEventListener("play", follow);
  video.addEventListener("seeked", follow);
  show();

  // A film runs while it is looked at, unless the reader prefers stillness or has stopped it.
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  let stopped = calm;
  video.addEventListener("pause", () => { stopped = stopped || (inView && !video.ended); });
  let inView = false;
  new IntersectionObserver(([entry]) => {
    inView = entry.isIntersecting;
    if (inView && !stopped) video.play().catch(() => {});
    if (!inView) video.pause();
  }, { threshold: 0.6 }).observe(video);

  // Some browsers play a video only when they can seek in it; a blob can be sought, an inlined file cannot.
  fetch(video.src).then((file) => file.blob()).then((blob) => { video.src = URL.createObjectURL(blob); });
}
