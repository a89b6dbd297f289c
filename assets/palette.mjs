// The palette: Ctrl K or Cmd K, a few letters, Enter. It is a combobox over the list that the page
// /find makes, so that both find the same; without scripts the link to that page is what there is.

const dialog = document.getElementById('palette');
const opener = document.getElementById('find');
const mac = /Mac|iPhone|iPad/.test(navigator.platform);
if (mac) opener.querySelector('kbd').textContent = '⌘ K';
opener.setAttribute('aria-haspopup', 'dialog');
opener.setAttribute('aria-keyshortcuts', mac ? 'Meta+K' : 'Control+K');

let input, list, said, wanted = 0, looking, at = 0;

function build() {
  dialog.innerHTML = `
    <input type="search" role="combobox" aria-expanded="true" aria-controls="palette-found" aria-autocomplete="list"
      aria-label="Find a page, an agent, a source or an id" placeholder="Page, agent, source or id"
      autocomplete="off" spellcheck="false" autocapitalize="none" maxlength="200">
    <ul id="palette-found" class="found" role="listbox" aria-label="Found"></ul>
    <p class="none" role="status"></p>`;
  input = dialog.querySelector('input');
  list = dialog.querySelector('ul');
  said = dialog.querySelector('p');
  input.addEventListener('input', look);
  input.addEventListener('keydown', steer);
  list.addEventListener('mousemove', (event) => {
    const option = event.target.closest('[role=option]');
    if (option) mark([...list.children].indexOf(option));
  });
  list.addEventListener('click', (event) => {
    const option = event.target.closest('[role=option]');
    if (option) location.assign(option.dataset.href);
  });
}

function look() {
  looking = find(++wanted);
}

async function find(turn) {
  const response = await fetch(`${opener.getAttribute('href')}?part=found&q=${encodeURIComponent(input.value)}`, { headers: { 'hx-request': 'true' } })
    .catch(() => undefined);
  if (turn !== wanted) return;
  if (response?.status === 401) {
    location.reload();
    return;
  }
  const found = new DOMParser().parseFromString(response?.ok ? await response.text() : '', 'text/html');
  if (turn !== wanted) return;
  list.replaceChildren(...[...found.querySelectorAll('a')].map((link, n) => {
    const option = document.createElement('li');
    option.id = `palette-${n}`;
    option.role = 'option';
    option.dataset.href = link.getAttribute('href');
    option.append(...link.childNodes);
    return option;
  }));
  said.textContent = list.children.length > 0 ? ''
    : response?.ok ? found.body.textContent.trim() : 'The server does not answer. Try again in a moment.';
  mark(0);
}

function mark(n) {
  const options = [...list.children];
  at = options.length === 0 ? 0 : (n + options.length) % options.length;
  for (const [n, option] of options.entries()) option.setAttribute('aria-selected', String(n === at));
  if (options[at]) {
    input.setAttribute('aria-activedescendant', options[at].id);
    options[at].scrollIntoView({ block: 'nearest' });
  } else input.removeAttribute('aria-activedescendant');
}

function steer(event) {
  if (event.key === 'ArrowDown') mark(at + 1);
  else if (event.key === 'ArrowUp') mark(at - 1);
  else if (event.key === 'Enter') go();
  else return;
  event.preventDefault();
}

// To what was found for what is written, not for what was written before.
async function go() {
  for (let turn; turn !== wanted;) {
    turn = wanted;
    await looking;
  }
  const option = list.children[at];
  if (option && dialog.open) location.assign(option.dataset.href);
}

function open() {
  if (dialog.open) return;
  if (!input) build();
  document.getElementById('pages').hidePopover?.();
  input.value = '';
  dialog.showModal();
  input.focus();
  look();
}

opener.addEventListener('click', (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  open();
});

addEventListener('keydown', (event) => {
  if (event.key.toLowerCase() !== 'k' || event.altKey || event.shiftKey) return;
  if (mac ? !event.metaKey : !event.ctrlKey) return;
  event.preventDefault();
  open();
});

// The light changes at once, and the server remembers it for the next page.
document.getElementById('theme').addEventListener('submit', (event) => {
  const form = event.currentTarget;
  const chosen = event.submitter;
  if (!chosen) return;
  event.preventDefault();
  document.documentElement.dataset.theme = chosen.value;
  for (const button of form.querySelectorAll('button')) button.setAttribute('aria-pressed', String(button === chosen));
  const body = new URLSearchParams(new FormData(form));
  body.set('theme', chosen.value);
  fetch(form.action, { method: 'POST', body, headers: { 'hx-request': 'true' } }).catch(() => {});
});

opener.dataset.ready = '1';
