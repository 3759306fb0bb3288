// The page starts: first the text, then the charts, then the responses.

const settings = readJson("page-settings");
state.scorer = settings.judge;
startNotes();

requestAnimationFrame(() => setTimeout(async () => {
  setCharts(readJson("charts"), settings.titles);
  if (settings.live) {
    document.documentElement.style.overflowAnchor = "none"; // the page keeps the place itself
    follow();
    return;
  }
  const packed = byId("samples").textContent;
  if (!packed) return;
  try {
    showResponses(await unpack(packed));
  } catch (error) {
    const note = byId("unpacking");
    if (note) note.textContent = `The responses could not be unpacked: ${error.message}`;
  }
}));
