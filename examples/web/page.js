import { ActionError, streamAction } from './actions.js';
import { withOptions } from './kkrpc.js';
import { Link } from './link.js';

const find = (id) => document.getElementById(id);
const link = new Link(`${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/ws`, {
  limits: { streamChunks: 64 }, // what the server makes of a stream ahead of its reader
});

// ---- streams -------------------------------------------------------------------------------------------------

/** The same action as a method of the channel: its chunks, over the WebSocket. */
async function* overSocket(name, input, { signal }) {
  if (!link.api) throw new ActionError({ message: 'there is no connection to the server' });
  yield* await withOptions(link.api, { signal })[name](input);
}

/** One stream at a time: a new one ends the one before, whose chunks are not taken any more. */
class Runner {
  static #all = new Set();
  #control = null;

  constructor() {
    Runner.#all.add(this);
  }

  static stopAll() {
    Runner.#all.forEach((runner) => runner.stop());
  }

  /** Opens a stream, and gives each chunk to `take`. Returns "done" or "stopped", or throws what went wrong. */
  async run(open, take) {
    this.stop();
    const control = new AbortController();
    this.#control = control;
    try {
      for await (const chunk of open({ signal: control.signal })) {
        if (control.signal.aborted) break;
        take(chunk);
      }
    } catch (error) {
      if (!control.signal.aborted) throw error;
    } finally {
      if (this.#control === control) this.#control = null;
    }
    return control.signal.aborted ? 'stopped' : 'done';
  }

  get running() {
    return this.#control !== null;
  }

  stop() {
    this.#control?.abort();
    this.#control = null;
  }
}

// ---- errors, as a person sees them -----------------------------------------------------------------------------

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

/** What there is to show of an error, whichever way it came. */
const errorOf = ({ name, code, message, status, fieldErrors }) =>
  ({ code: typeof code === 'string' ? code : name, message, status, fieldErrors });

/** Show `error` in `box`, or nothing. */
function showProblem(box, error) {
  box.hidden = !error;
  box.replaceChildren();
  if (!error) return;
  const { code, message: text, status, fieldErrors } = errorOf(error);
  box.append(element('strong', '', code), element('span', 'status', status ? `status ${status}` : ''));
  if (text) box.append(element('p', 'message', text));
  const list = element('ul');
  for (const [path, messages] of Object.entries(fieldErrors ?? {})) {
    for (const message of messages) list.append(element('li', '', `${path}: ${message}`));
  }
  if (list.children.length > 0) box.append(list);
}

/** Show what is wrong with which field beside it; the first of them gets the focus. Returns the error for the box. */
function showFieldErrors(form, error) {
  const fieldErrors = { ...error?.fieldErrors };
  let first = null;
  for (const input of form.querySelectorAll('.field input')) {
    const messages = fieldErrors[input.name] ?? [];
    delete fieldErrors[input.name];
    find(`${input.id}-error`).textContent = messages.join('; ');
    input.setAttribute('aria-invalid', String(messages.length > 0));
    if (messages.length > 0) first ??= input;
  }
  first?.focus();
  return error && { ...errorOf(error), fieldErrors };
}

/** Disable `button`; the focus, which it would lose, goes to `next`. */
function release(button, next) {
  const focused = document.activeElement === button;
  button.disabled = true;
  if (focused) next.focus();
}

const capital = (text) => text[0].toUpperCase() + text.slice(1);

const numberOf = (text) => (text.trim() === '' ? text : Number(text));

// ---- the connection --------------------------------------------------------------------------------------------

const STATES = { connecting: 'Connecting…', connected: 'Connected', lost: 'Connection lost' };

function showConnection() {
  find('connection').dataset.state = link.state;
  find('connection-state').textContent = STATES[link.state];
  const again = find('reconnect');
  if (link.state === 'lost') again.hidden = false;
  if (link.state === 'connected') {
    if (document.activeElement === again) find('prompt').focus();
    again.hidden = true;
  }
}

link.addEventListener('state', showConnection);
find('reconnect').addEventListener('click', () => link.reconnect());
addEventListener('online', () => link.reconnect());
showConnection();

// ---- the chat --------------------------------------------------------------------------------------------------

function startChat() {
  const [form, transcript, stop, state, problem] = ['chat', 'transcript', 'chat-stop', 'chat-state', 'chat-problem'].map(find);
  const { prompt } = form.elements;
  const runner = new Runner();

  async function ask() {
    const question = element('div', 'question', prompt.value);
    const answer = element('div', 'answer');
    const input = { prompt: prompt.value, tokens: numberOf(form.elements.tokens.value) };
    const [over, stream] = form.elements.transport.value === 'sse'
      ? ['server-sent events', streamAction] : ['WebSocket', overSocket];
    let count = 0;
    let end = 'failed';
    showFieldErrors(form);
    showProblem(problem);
    transcript.querySelector('.empty')?.remove();
    transcript.append(question, answer);
    transcript.scrollTop = transcript.scrollHeight;
    answer.setAttribute('aria-busy', 'true'); // it is read out once it is whole
    state.textContent = `Asking over ${over}…`;
    stop.disabled = false;
    try {
      end = await runner.run((options) => stream('ai_chat', input, options), (token) => {
        if (count === 0) state.textContent = `Answering over ${over}…`;
        if (count === 0 && prompt.value === input.prompt) prompt.value = '';
        count += 1;
        answer.append(token);
        transcript.scrollTop = transcript.scrollHeight;
      });
    } catch (error) {
      if (count === 0) [question, answer].forEach((shown) => shown.remove());
      showProblem(problem, showFieldErrors(form, error));
    }
    answer.removeAttribute('aria-busy');
    answer.dataset.end = end;
    if (runner.running) return; // another question has taken over
    release(stop, prompt);
    state.textContent = `${capital(end)}: ${count} tokens over ${over}`;
  }

  form.addEventListener('submit', (event) => {
    event.preventDefault();
    ask();
  });
  find('suggestions').addEventListener('click', ({ target }) => {
    if (target.type !== 'button') return;
    prompt.value = target.textContent;
    ask();
  });
  stop.addEventListener('click', () => runner.stop());
  form.addEventListener('keydown', ({ key }) => {
    if (key === 'Escape') runner.stop();
  });
}

// ---- the files -------------------------------------------------------------------------------------------------

function startFiles() {
  const [form, stop, bar, state, problem] = ['files', 'files-stop', 'progress', 'files-state', 'files-problem'].map(find);
  const runner = new Runner();

  function show({ done, total, file }) {
    bar.max = total;
    bar.value = done;
    find('percent').textContent = `${Math.floor((100 * done) / total)} %`;
    find('file').textContent = file;
  }

  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const input = { pattern: form.elements.pattern.value };
    let last = { done: 0, total: 1, file: '–', lines: 0 };
    let end = 'failed';
    showFieldErrors(form);
    showProblem(problem);
    show(last);
    state.textContent = 'Counting…';
    stop.disabled = false;
    try {
      end = await runner.run((options) => streamAction('count_lines', input, options), (chunk) => {
        last = chunk;
        show(chunk);
      });
    } catch (error) {
      showProblem(problem, showFieldErrors(form, error));
    }
    if (runner.running) return;
    release(stop, form.elements.pattern);
    state.textContent = `${capital(end)}: ${last.lines.toLocaleString('en')} lines in ${last.done} files`;
  });
  stop.addEventListener('click', () => runner.stop());
}

// ---- the log ---------------------------------------------------------------------------------------------------

function startLog() {
  const SHOWN = 200; // lines; older ones are forgotten
  const ASK_MS = 250;
  const [start, pause, stop, lines, state, problem] =
    ['log-start', 'log-pause', 'log-stop', 'lines', 'log-state', 'log-problem'].map(find);
  const runner = new Runner();
  let read = 0;
  let wanted = true; // it begins by itself, and again with each new connection
  let paused = null; // while it is: a promise, and what ends it

  function show({ number, time, level, text }) {
    const line = element('li');
    line.append(element('span', 'number', String(number).padStart(5)), ` ${time} `,
      element('span', level, level.padEnd(5)), ` ${text}`);
    const atEnd = lines.scrollTop + lines.clientHeight >= lines.scrollHeight - 30;
    lines.append(line);
    if (lines.children.length > SHOWN) lines.firstChild.remove();
    if (atEnd) lines.scrollTop = lines.scrollHeight;
  }

  function count(made) {
    find('made').textContent = made;
    find('read').textContent = read;
    find('ahead').textContent = Math.max(made - read, 0);
  }

  /** What the server says of its generator, asked over the same connection. */
  async function ask() {
    const { api } = link;
    if (api) await api.log.made().then(count, () => {});
  }

  function hold(yes) {
    if (yes === (paused !== null)) return;
    if (yes) {
      paused = Promise.withResolvers();
    } else {
      paused.resolve();
      paused = null;
    }
    pause.setAttribute('aria-pressed', String(yes));
    pause.textContent = yes ? 'Continue' : 'Pause';
    state.textContent = yes ? 'Paused: nothing is read' : 'Reading';
  }

  /** The log, whose reader stands still while it is paused. */
  async function* follow({ signal }) {
    for await (const line of await withOptions(link.api, { signal }).log.follow()) {
      yield line;
      await paused?.promise;
    }
  }

  async function run() {
    if (!link.api || runner.running) return;
    showProblem(problem);
    read = 0;
    lines.replaceChildren();
    [start.disabled, pause.disabled, stop.disabled] = [true, false, false];
    state.textContent = 'Reading';
    const asking = setInterval(ask, ASK_MS);
    let end = 'Lost with the connection';
    try {
      end = capital(await runner.run(follow, (line) => {
        read += 1;
        show(line);
      }));
    } catch (error) {
      showProblem(problem, error);
    }
    clearInterval(asking);
    await ask();
    hold(false);
    start.disabled = false;
    [pause, stop].forEach((button) => release(button, start));
    state.textContent = end;
  }

  start.addEventListener('click', () => {
    wanted = true;
    run();
  });
  pause.addEventListener('click', () => hold(paused === null));
  stop.addEventListener('click', () => {
    wanted = false;
    runner.stop();
    hold(false);
  });
  link.addEventListener('state', () => {
    if (link.state === 'lost') hold(false); // the reader finds out that there is nothing more
    if (link.state === 'connected' && wanted) run();
  });
}

// ---- errors on purpose -----------------------------------------------------------------------------------------

function startErrors() {
  const [state, problem] = ['errors-state', 'errors-problem'].map(find);
  const runner = new Runner();

  find('wrongs').addEventListener('click', async ({ target }) => {
    if (target.type !== 'button') return;
    showProblem(problem);
    if (target.value === 'cut') {
      state.textContent = 'The connection was cut';
      link.channel?.close(); // the link takes it for lost, and makes another one
      return;
    }
    const input = target.value === 'invalid' ? { how: 'sideways', chunks: -1 } : { how: target.value };
    let count = 0;
    try {
      await runner.run((options) => streamAction('go_wrong', input, options), () => { count += 1; });
    } catch (error) {
      showProblem(problem, error);
    }
    state.textContent = `${target.textContent}: after ${count} chunks`;
  });
}

startChat();
startFiles();
startLog();
startErrors();

// Who leaves the page wants nothing any more, even where the browser keeps the page for the way back.
addEventListener('pagehide', () => {
  link.close();
  Runner.stopAll();
});
addEventListener('pageshow', ({ persisted }) => {
  if (persisted) location.reload();
});
