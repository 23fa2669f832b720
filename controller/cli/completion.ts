import type { Command, Option } from 'commander';

/** What completes a placeholder: names of the API's things, files, or fixed words. Placeholders that are none of these complete nothing. */
const NOUNS = ['host', 'cluster', 'primary-storage', 'backup-storage', 'image', 'volume', 'operation', 'token'];
export type Completion = { names: string } | { files: true } | { words: readonly string[] } | undefined;

/** One command as the shells need it. */
export interface CommandShape {
  /** `image cache add`; the program itself is ''. */
  path: string;
  subcommands: { name: string; summary: string }[];
  options: { flags: string[]; summary: string; takesValue: boolean; completion: Completion }[];
  /** One for each argument; the last goes on where it is variadic. */
  args: Completion[];
  variadic: boolean;
}

/** All commands below `command`, itself included, hidden ones left out. */
export function describeCommands(command: Command, path = ''): CommandShape[] {
  const help = command.createHelp();
  const children = help.visibleCommands(command).filter(child => child.name() !== 'help');
  const shape: CommandShape = {
    path,
    subcommands: children.map(child => ({ name: child.name(), summary: child.description() })),
    options: help.visibleOptions(command).map(describeOption),
    args: command.registeredArguments.map(argument =>
      argument.argChoices ? { words: argument.argChoices } : byPlaceholder(argument.name()),
    ),
    variadic: command.registeredArguments.at(-1)?.variadic ?? false,
  };
  return [shape, ...children.flatMap(child => describeCommands(child, path === '' ? child.name() : `${path} ${child.name()}`))];
}

function describeOption(option: Option): CommandShape['options'][number] {
  const placeholder = /[<[]([^>\]]+?)(?:\.\.\.)?[>\]]/.exec(option.flags)?.[1];
  return {
    flags: [option.short, option.long].filter(flag => flag !== undefined),
    summary: option.description,
    takesValue: placeholder !== undefined,
    completion: option.argChoices
      ? { words: option.argChoices }
      : placeholder === undefined
        ? undefined
        : byPlaceholder(placeholder),
  };
}

function byPlaceholder(name: string): Completion {
  if (NOUNS.includes(name)) return { names: name };
  return name === 'path' ? { files: true } : undefined;
}

/** `@image` for names, `@files` for files, else the words: how the scripts of bash and zsh write a completion. */
const mark = (completion: Completion): string =>
  completion === undefined
    ? ''
    : 'names' in completion
      ? `@${completion.names}`
      : 'files' in completion
        ? '@files'
        : completion.words.join(' ');

/** A shell array of what completes what: bash and zsh read the same lines. */
function arrays(shapes: CommandShape[]): string {
  const lines: string[] = [];
  const set = (name: string, key: string, value: string): void =>
    void (value !== '' && lines.push(`_cistern_${name}[${key || '/'}]='${value}'`));
  for (const { path, subcommands, options, args, variadic } of shapes) {
    const key = path.replaceAll(' ', '/');
    set('commands', key, subcommands.map(child => child.name).join(' '));
    set('options', key, options.flatMap(option => option.flags).join(' '));
    for (const option of options.filter(o => o.takesValue))
      for (const flag of option.flags) set('values', `${key}:${flag}`, mark(option.completion) || '@none');
    args.forEach((arg, i) => set('args', `${key}:${i + 1}`, mark(arg)));
    if (variadic) set('args', `${key}:n`, mark(args.at(-1)));
  }
  return lines.join('\n');
}

const names = (list: string[]): string => list.map(name => `_cistern_${name}`).join(' ');
const ARRAYS = names(['commands', 'options', 'values', 'args']);

/**
 * The walk that bash and zsh share: `path` becomes the command that the typed words lead to, `want` what may come next. Words and
 * options are known here; only names are asked for, by `cistern __complete NOUN`, which prints nothing when the controller is down.
 */
const WALK = `  local path='' word want='' skip='' flag='' count=0 key
  for word in "\${typed[@]}"; do
    key="\${path:-/}"
    if [[ -n $skip ]]; then skip=''; continue; fi
    flag=''
    if [[ $word == -* ]]; then
      [[ $word != *=* && -n "\${_cistern_values[\${path}:$word]}" ]] && { skip=1; flag=$word; }
    elif [[ " \${_cistern_commands[$key]} " == *" $word "* ]]; then path="\${path:+$path/}$word"
    else count=$((count + 1)); fi
  done
  key="\${path:-/}"
  if [[ -n $skip ]]; then want="\${_cistern_values[\${path}:$flag]}"
  elif [[ $current == -* ]]; then want="\${_cistern_options[$key]}"
  elif [[ -n "\${_cistern_commands[$key]}" ]]; then want="\${_cistern_commands[$key]}"
  else
    want="\${_cistern_args[$path:$((count + 1))]}"
    [[ -z $want ]] && want="\${_cistern_args[$path:n]}"
  fi`;

/** The completion script for bash 4.2 and later; it needs nothing of the bash-completion package. */
export const bashScript = (shapes: CommandShape[]): string => `# bash completion of cistern: source <(cistern completion bash)
declare -gA ${ARRAYS}
${arrays(shapes)}
_cistern() {
  local current="\${COMP_WORDS[COMP_CWORD]}"
  local typed=("\${COMP_WORDS[@]:1:COMP_CWORD-1}")
${WALK}
  COMPREPLY=()
  case $want in
    @files) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
    @none) ;;
    @*) mapfile -t COMPREPLY < <(compgen -W "$(cistern __complete "\${want#@}" 2>/dev/null)" -- "$current") ;;
    *) mapfile -t COMPREPLY < <(compgen -W "$want" -- "$current") ;;
  esac
}
complete -F _cistern cistern
`;

/** The completion script for zsh. */
export const zshScript = (shapes: CommandShape[]): string => `#compdef cistern
# zsh completion of cistern: source <(cistern completion zsh), or save it as _cistern in a folder of $fpath
typeset -gA ${ARRAYS}
${arrays(shapes)}
_cistern() {
  local current="\${words[CURRENT]}"
  local -a typed=("\${(@)words[2,CURRENT-1]}")
${WALK.replaceAll('path', 'walked')}
  case $want in
    @files) _files ;;
    @none) ;;
    @*) compadd -- \${(f)"$(cistern __complete "\${want#@}" 2>/dev/null)"} ;;
    *) compadd -- \${=want} ;;
  esac
}
if [[ \${funcstack[1]} == _cistern ]]; then _cistern "$@"; else compdef _cistern cistern; fi
`;

const fishQuote = (text: string): string => `'${text.replace(/[\\']/g, c => `\\${c}`)}'`;

/** The completion script for fish: one line for each subcommand, option and argument. */
export function fishScript(shapes: CommandShape[]): string {
  const lines = shapes.flatMap(shape => fishLines(shape));
  const valued = new Set(
    shapes.flatMap(({ options }) => options.filter(option => option.takesValue).flatMap(option => option.flags)),
  );
  return `# fish completion of cistern: cistern completion fish | source
set -g __cistern_valued ${[...valued].join(' ')}
function __cistern_at --description 'whether the typed words lead to this command'
  set -l typed (commandline -opc)[2..]
  set -l plain
  set -l value no
  for word in $typed
    if test $value = yes
      set value no
    else if string match -q -- '-*' $word
      contains -- $word $__cistern_valued; and set value yes
    else
      set -a plain $word
    end
  end
  set -l wanted (string split ' ' -- $argv[1])
  test -z "$argv[1]"; and set wanted
  set -l deeper $argv[2..]
  test (count $plain) -ge (count $wanted); or return 1
  for i in (seq (count $wanted))
    test "$plain[$i]" = "$wanted[$i]"; or return 1
  end
  set -l next (math (count $wanted) + 1)
  test (count $plain) -lt $next; or not contains -- "$plain[$next]" $deeper
end
complete -c cistern -f
${lines.join('\n')}
`;
}

function fishLines({ path, subcommands, options, args }: CommandShape): string[] {
  const at = `-n ${fishQuote(`__cistern_at ${[path, ...subcommands.map(child => child.name)].map(word => `"${word}"`).join(' ')}`)}`;
  const lines = subcommands.map(child => `complete -c cistern ${at} -a ${fishQuote(child.name)} -d ${fishQuote(child.summary)}`);
  for (const { flags, summary, takesValue, completion } of options) {
    const forms = flags.map(flag => (flag.startsWith('--') ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`)).join(' ');
    lines.push(`complete -c cistern ${at} ${forms} -d ${fishQuote(summary)}${takesValue ? fishValues(completion, true) : ''}`);
  }
  const first = args.find(arg => arg !== undefined);
  if (first) lines.push(`complete -c cistern ${at}${fishValues(first)}`);
  return lines;
}

/** Files are offered only where a file is wanted: -x for option values that are none. */
function fishValues(completion: Completion, option = false): string {
  const files = completion !== undefined && 'files' in completion;
  const words =
    completion === undefined || files
      ? ''
      : 'names' in completion
        ? `(cistern __complete ${completion.names} 2>/dev/null)`
        : completion.words.join(' ');
  return `${option ? (files ? ' -r' : ' -x') : ''}${files ? ' -F' : ''}${words === '' ? '' : ` -a ${fishQuote(words)}`}`;
}
