// An agent in Node (18 or newer), without any dependency: it does tasks of the capability `exclaim`.
// Inputs: text, and seconds (how long it takes, default 0). It needs OPSCORE_API_URL and
// OPSCORE_API_KEY (scope agent; admin too, unless it is registered); OPSCORE_AGENT_NAME may name it.
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";

const { OPSCORE_API_URL, OPSCORE_API_KEY, OPSCORE_AGENT_NAME: name = "exclaimer-js" } = process.env;
if (!OPSCORE_API_URL || !OPSCORE_API_KEY) {
  console.error("OPSCORE_API_URL and OPSCORE_API_KEY say where the platform is: set them.");
  process.exit(2);
}
const API = `${OPSCORE_API_URL.replace(/\/+$/, "")}/api/v1`;
const CONCURRENCY = 4;
const held = new Map(); // task id -> { task, stop: AbortController, done: Promise }
const stopping = new AbortController();
let session;

class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** Asks once. Throws Refused for 4xx, any other error when the platform is away. */
async function once(method, path, body, { timeoutS = 10, signal } = {}) {
  const limit = AbortSignal.timeout(timeoutS * 1000);
  const answer = await fetch(API + path, {
    method,
    headers: { Authorization: `Bearer ${OPSCORE_API_KEY}`, "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
    signal: signal ? either(signal, limit) : limit,
  });
  const text = await answer.text();
  if (answer.ok) return text ? JSON.parse(text) : null;
  if (answer.status >= 500) throw new Error(`${method} ${path} answers ${answer.status}`);
  throw new Refused(answer.status, `${method} ${path} answers ${answer.status}: ${text}`);
}

/** Asks until the platform is there. Throws Refused. */
async function ask(method, path, body, options = {}) {
  for (let waitS = 0.2; ; waitS = Math.min(waitS * 2, 3)) {
    try {
      return await once(method, path, body, options);
    } catch (error) {
      if (error instanceof Refused || options.signal?.aborted) throw error;
      await sleep(waitS * 1000 * (0.5 + Math.random()));
    }
  }
}

/** AbortSignal.any, which Node 18 does not have. */
function either(...signals) {
  const both = new AbortController();
  for (const signal of signals) {
    if (signal.aborted) both.abort(signal.reason);
    else signal.addEventListener("abort", () => both.abort(signal.reason), { once: true });
  }
  return both.signal;
}

/** The work itself: replace this by your own. `signal` says when it is not wanted any more. */
async function exclaim({ text, seconds = 0 }, signal) {
  if (typeof text !== "string") {
    throw Object.assign(new Error("there is nothing to exclaim"), { type: "no_text", final: true });
  }
  await sleep(seconds * 1000, undefined, { signal });
  return { text: `${text}!` };
}

/** Says what it offers. Refused to a key that may only execute: somebody else registered it. */
async function register() {
  try {
    await ask("POST", "/agents", { name, kind: "remote", capabilities: ["exclaim"] });
  } catch (error) {
    if (error.status !== 403 && error.status !== 409) throw error;
  }
}

async function begin() {
  session = await ask("POST", `/agents/${name}/sessions`, { host: hostname(), pid: process.pid });
}

/** Begins a new life after `old` has ended; what was done for it is not wanted any more. */
async function renew(old) {
  if (session !== old) return;
  for (const work of held.values()) work.stop.abort();
  await begin();
}

async function beatForEver() {
  for (;;) {
    await sleep((session.heartbeat_s / 2) * 1000);
    if (held.size === 0) continue; // a claim that waits is a sign of life by itself
    const mine = session;
    const tasks = [...held.values()].map(({ task }) => ({ id: task.id, fence: task.fence }));
    try {
      const path = `/sessions/${mine.session_id}/heartbeat`;
      const { cancelled } = await once("POST", path, { tasks });
      for (const id of cancelled) held.get(id)?.stop.abort();
    } catch (error) {
      if (error instanceof Refused && error.status === 409) await renew(mine);
      else console.error(`${name}: no heartbeat: ${error.message}`);
    }
  }
}

async function perform(task, stop) {
  let report;
  try {
    const { id, fence } = task;
    await once("POST", `/tasks/${id}/logs`, { fence, lines: ["exclaiming"] }).catch(() => {});
    const result = await exclaim(task.inputs, stop.signal);
    report = { fence, status: "completed", result };
  } catch (error) {
    const { type = error.name, message, final = false } = error;
    const told = { type, message: message || type, retryable: !final };
    report = { fence: task.fence, status: "failed", error: told };
  }
  try {
    // Also of a task that was cancelled: refused, but now the platform knows that it is let go.
    await ask("POST", `/tasks/${task.id}/report`, report);
  } catch (error) {
    console.error(`${name}: the work is dropped: ${error.message}`);
  }
}

async function claimForEver() {
  while (!stopping.signal.aborted) {
    if (held.size >= CONCURRENCY) {
      await Promise.race([...held.values()].map(({ done }) => done));
      continue;
    }
    const mine = session;
    try {
      const body = { limit: CONCURRENCY - held.size, wait_s: 20 };
      const options = { timeoutS: 30, signal: stopping.signal };
      const { tasks } = await ask("POST", `/sessions/${mine.session_id}/claim`, body, options);
      for (const task of tasks) {
        const stop = new AbortController();
        const done = perform(task, stop).finally(() => {
          if (held.get(task.id)?.stop === stop) held.delete(task.id);
        });
        held.set(task.id, { task, stop, done });
      }
    } catch (error) {
      if (stopping.signal.aborted) return;
      if (error.status !== 409) throw error;
      await renew(mine);
    }
  }
}

for (const word of ["SIGTERM", "SIGINT"]) process.on(word, () => stopping.abort());
try {
  await register();
  await begin();
  console.log(`${name} is there: session ${session.session_id}`);
  const beats = beatForEver();
  await Promise.race([claimForEver(), beats]);
  await Promise.all([...held.values()].map(({ done }) => done));
  await once("DELETE", `/sessions/${session.session_id}`).catch(() => {});
  console.log(`${name} has signed off`);
  process.exit(0);
} catch (error) {
  console.error(`${name}: ${error.message}`);
  process.exit(1);
}
