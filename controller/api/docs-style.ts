/** The style of the docs page: system fonts, two columns where there is room, light or dark as the reader's system says. */
export const docsStyle = `
:root { --text: #1c2128; --back: #fff; --soft: #f3f5f7; --line: #d5dae0; --link: #0b5cad; --get: #1a6e3c; --write: #8a4b00; --delete: #a3211b }
@media (prefers-color-scheme: dark) {
  :root { --text: #dde3ea; --back: #14181d; --soft: #1d2329; --line: #353d46; --link: #7db7f0; --get: #6cc48d; --write: #e0a458; --delete: #f0867f }
}
* { box-sizing: border-box }
body { margin: 0; display: flex; font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back) }
nav { flex: 0 0 17rem; height: 100vh; position: sticky; top: 0; overflow-y: auto; padding: 1rem; border-right: 1px solid var(--line); font-size: 13px }
nav h2 { font-size: 14px; margin: .8rem 0 .2rem }
nav ul { margin: 0; padding-left: 1rem }
main { flex: 1; min-width: 0; max-width: 62rem; padding: 1rem 2rem 6rem }
h3 { margin: 2rem 0 .2rem }
h4 { margin: .8rem 0 .2rem }
a { color: var(--link) }
code, pre { font: 13px/1.45 ui-monospace, monospace }
code { background: var(--soft); padding: 0 .2em; border-radius: 3px; overflow-wrap: anywhere }
pre { background: var(--soft); border: 1px solid var(--line); border-radius: 4px; padding: .6rem; overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: 14px }
th, td { text-align: left; vertical-align: top; padding: .25rem .6rem .25rem 0; border-bottom: 1px solid var(--line) }
article { border-bottom: 1px solid var(--line); padding-bottom: 1rem }
.route { margin: .2rem 0 }
.get { color: var(--get) } .post, .put, .patch { color: var(--write) } .delete { color: var(--delete) }
@media (max-width: 50rem) { body { display: block } nav { position: static; height: auto; border: 0 } main { padding: 1rem } }
`;
