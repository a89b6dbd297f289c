// What a page does by itself: times that stay true, copying, the dialog, the transcript's tail.
// Nothing here is needed to read a page or to send a form.

const MINUTE = 60, HOUR = 60 * MINUTE, DAY = 24 * HOUR;

// As src/web/ui/view.rs says it.
function distance(at, now) {
  const seconds = Math.floor(Math.abs(now - at) / 1000);
  const ahead = at > now;
  const said = seconds < MINUTE ? `${seconds} s`
    : seconds < HOUR ? `${Math.floor(seconds / MINUTE)} min`
    : seconds < DAY ? `${Math.floor(seconds / HOUR)} h`
    : `${Math.floor(seconds / DAY)} d`;
  if (seconds < 10) return ahead ? 'now' : 'just now';
  if (ahead) return `in ${said}`;
  return seconds < 30 * DAY ? `${said} ago` : at.toISOString().slice(0, 10);
}

// The server's clock decides: a wrong one here would make everything old or new.
const told = Date.parse(document.getElementById('main')?.dataset.now ?? '');
const skew = Number.isNaN(told) ? 0 : Date.now() - told;

function tellTimes(root = document) {
  const now = new Date(Date.now() - skew);
  for (const time of root.querySelectorAll('time')) {
    const at = new Date(time.dateTime);
    const said = distance(at, now);
    if (time.textContent !== said) time.textContent = said;
    if (!time.dataset.local) {
      time.dataset.local = '1';
      time.title = `${at.toLocaleString()} (${time.dateTime})`;
    }
  }
}

async function copy(button) {
  const text = document.getElementById(button.dataset.copy)?.textContent ?? '';
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without https there is no clipboard but the old one.
    const range = document.createRange();
    range.selectNodeContents(document.getElementById(button.dataset.copy));
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    if (!document.execCommand('copy')) return;
  }
  const label = button.getAttribute('aria-label');
  button.classList.add('copied');
  button.setAttribute('aria-label', 'Copied');
  button.querySelector('use')?.setAttribute('href', '#i-check');
  setTimeout(() => {
    button.classList.remove('copied');
    button.setAttribute('aria-label', label);
    button.querySelector('use')?.setAttribute('href', '#i-copy');
  }, 1600);
}

function notify(text) {
  const notice = document.getElementById('notice');
  if (!notice) return;
  notice.textContent = text;
  notice.hidden = false;
  clearTimeout(notify.timer);
  notify.timer = setTimeout(() => { notice.hidden = true; }, 8000);
}

addEventListener('click', (event) => {
  const button = event.target.closest?.('button.copy');
  if (button) copy(button);
  // A click on the backdrop is one on the dialog itself, outside of its box.
  if (event.target instanceof HTMLDialogElement) {
    const box = event.target.getBoundingClientRect();
    const inside = event.clientX >= box.left && event.clientX <= box.right
      && event.clientY >= box.top && event.clientY <= box.bottom;
    if (!inside) event.target.close();
  }
});

const dialog = document.getElementById('dialog');
// What was shown once is gone when the dialog is.
dialog?.addEventListener('close', () => dialog.replaceChildren());

// The page follows the transcript as long as its end is in sight.
let follows = false;
const page = document.scrollingElement;

addEventListener('htmx:before:swap', () => {
  follows = page.scrollHeight - page.scrollTop - page.clientHeight < 120;
});

addEventListener('htmx:after:swap', (event) => {
  const target = event.detail.ctx?.target;
  if (target?.id === 'dialog' && !target.open) target.showModal();
  if (target?.id === 'log' && follows) page.scrollTop = page.scrollHeight;
  tellTimes();
});

// A page in the background asks for nothing new, and what somebody is writing in is left alone. A search
// that goes on to the next page does so there too.
addEventListener('htmx:config:request', (event) => {
  const { request, sourceElement } = event.detail.ctx;
  const polls = request.action.includes('part=') && !request.action.includes('page=');
  const fields = sourceElement?.querySelectorAll('input:not([type="hidden"]), textarea') ?? [];
  const isTyped = [...fields].some((it) => it.value !== it.defaultValue);
  if (polls && (document.hidden || isTyped)) event.preventDefault();
});

addEventListener('bellpull:notice', (event) => notify(event.detail.text));

// A form in steps: one after the other here, one below the other without scripts. What is wrong on one
// step keeps it there. A form that the server refused is shown whole: a secret has to be given again.
const steps = document.querySelector('form[data-steps]');
function step(name) {
  for (const part of steps.querySelectorAll('fieldset')) part.hidden = part.id !== `${name}-step`;
  for (const it of document.querySelectorAll('[data-step]')) {
    if (it.dataset.step === name) it.setAttribute('aria-current', 'step');
    else it.removeAttribute('aria-current');
  }
  steps.querySelector(`#${name}-step`).querySelector('input, select')?.focus();
}
if (steps && !document.querySelector('.problem')) {
  for (const it of steps.querySelectorAll('[data-to], .acts[hidden]')) it.hidden = false;
  step('secret');
  steps.addEventListener('click', (event) => {
    const to = event.target.closest('[data-to]')?.dataset.to;
    if (!to) return;
    const fields = [...event.target.closest('fieldset').querySelectorAll('input, select')];
    if (to === 'secret' || fields.every((it) => it.reportValidity())) step(to);
  });
  // Enter goes on to the next step, as the button does.
  steps.addEventListener('keydown', (event) => {
    const next = event.target.closest('#secret-step')?.querySelector('[data-to]');
    if (event.key !== 'Enter' || !next || event.target.tagName !== 'INPUT') return;
    event.preventDefault();
    next.click();
  });
}

const connection = document.getElementById('connection');
function say(text) {
  if (!connection) return;
  connection.textContent = text;
  connection.hidden = !text;
}
addEventListener('htmx:sse:after:connection', () => say(''));
addEventListener('htmx:sse:error', (event) => {
  // Signed out meanwhile: the page as a whole has to know.
  if (event.detail.status === 401) location.reload();
  else say('The connection was cut. It is tried again …');
});

setInterval(tellTimes, 10_000);
tellTimes();
document.documentElement.dataset.ready = '1';
