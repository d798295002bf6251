// Server-sent events, as far as the API sends them: `data:` lines of JSON, comments, `[DONE]`.

/** The JSON of each event, until `[DONE]`. Throws if the stream ends without it. */
export async function* events(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) throw new Error("The connection closed before the answer was complete.");
      const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data:")) continue;
        const data = line.slice("data:".length).trim();
        if (data === "[DONE]") return;
        yield JSON.parse(data);
      }
    }
  } finally {
    // Leaving early tells the server to stop.
    reader.cancel().catch(() => {});
  }
}
