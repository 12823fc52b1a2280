// The connection to the server: news as they come, and requests with the token, which is kept in this tab only.
const KEY = "molmoact2-token";
const SILENCE_MS = 5000;
const LONGEST_WAIT_MS = 5000;

export const token = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (text) => sessionStorage.setItem(KEY, text),
};

const headers = () => (token.get() ? { Authorization: `Bearer ${token.get()}` } : {});

// Send a command; resolves to "" when it was taken, else to why not.
export async function post(path, body) {
  try {
    const answer = await fetch(path, {
      method: "POST",
      headers: { ...headers(), "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(SILENCE_MS),
    });
    if (answer.ok) return "";
    const said = await answer.json().catch(() => ({}));
    return typeof said.error === "string" ? said.error : `the server answered ${answer.status}`;
  } catch (error) {
    return error.name === "TimeoutError" ? "the server does not answer" : "the server cannot be reached";
  }
}

// Watches one session, or the newest for null, until it is told to watch another; begins anew when the line breaks.
export class Live {
  constructor({ receive, tell, needToken }) {
    Object.assign(this, { receive, tell, needToken });
    this.turn = 0;
  }

  async watch(session) {
    const turn = ++this.turn;
    this.stop?.abort();
    for (let wait = 500; turn === this.turn; wait = Math.min(2 * wait, LONGEST_WAIT_MS)) {
      const outcome = await this.listen(session, turn, () => { wait = 500; });
      if (turn !== this.turn) return;
      if (outcome === 401) {
        this.tell("lost", "token needed");
        await this.needToken();
      } else {
        this.tell("lost", outcome === 503 ? "too many are watching" : "no connection to the server");
        await new Promise((go) => setTimeout(go, wait));
      }
    }
  }

  // Read news until the stream ends; returns the status of a refusal.
  async listen(session, turn, heard) {
    const stop = (this.stop = new AbortController());
    let timer;
    const patience = () => { clearTimeout(timer); timer = setTimeout(() => stop.abort(), SILENCE_MS); };
    try {
      patience();
      const query = session === null ? "" : `?session=${encodeURIComponent(session)}`;
      const answer = await fetch(`dashboard/live${query}`, { headers: headers(), signal: stop.signal });
      if (!answer.ok) return answer.status;
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let rest = ""; ;) {
        const { done, value } = await reader.read();
        if (done || turn !== this.turn) return 0;
        const events = (rest + value).split("\n\n");
        rest = events.pop();
        patience();
        heard();
        for (const event of events) this.receive(JSON.parse(event.slice("data: ".length)));
        this.tell("live", "live");
      }
    } catch {
      return 0;
    } finally {
      clearTimeout(timer);
    }
  }
}
