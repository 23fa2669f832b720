import { globSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import ts from 'typescript';

export const ROOT = join(import.meta.dirname, '..', '..');

/** One TypeScript file of the repository. */
export interface SourceFile {
  /** Relative to the root, such as `agent/primary/local.ts`. */
  path: string;
  text: string;
  imports: Import[];
}

export interface Import {
  /** A path as above for our own files, else the package's name (`node:fs` for Node's own). */
  target: string;
  own: boolean;
  /** Gone at run time. */
  typeOnly: boolean;
}

export const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8');

/** All files of the repository that people wrote, as paths relative to the root. */
export const repositoryFiles = (pattern = '**/*'): string[] =>
  globSync(pattern, { cwd: ROOT, exclude: entry => ['node_modules', '.git', '.cache'].includes(entry.name), withFileTypes: true })
    .filter(entry => entry.isFile())
    .map(entry => relative(ROOT, join(entry.parentPath, entry.name)))
    .sort();

/** Every TypeScript file with what it imports, dynamic imports of literals included. */
export const sourceFiles = (): SourceFile[] =>
  repositoryFiles('{agent,controller,shared,test}/**/*.ts').map(path => parse(path, read(path)));

function parse(path: string, text: string): SourceFile {
  const tree = ts.createSourceFile(path, text, ts.ScriptTarget.Latest);
  const imports: Import[] = [];
  const add = (specifier: ts.Expression | undefined, typeOnly: boolean): void => {
    if (specifier && ts.isStringLiteral(specifier)) imports.push(named(path, specifier.text, typeOnly));
  };
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node))
      add(node.moduleSpecifier, node.importClause?.phaseModifier === ts.SyntaxKind.TypeKeyword || onlyTypes(node));
    else if (ts.isExportDeclaration(node)) add(node.moduleSpecifier, node.isTypeOnly);
    else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) add(node.arguments[0], false);
    ts.forEachChild(node, visit);
  };
  visit(tree);
  return { path, text, imports };
}

/** `import { type A, type B } from` is as empty at run time as `import type`, for our purposes. */
function onlyTypes(node: ts.ImportDeclaration): boolean {
  const names = node.importClause?.namedBindings;
  return (
    !node.importClause?.name &&
    names !== undefined &&
    ts.isNamedImports(names) &&
    names.elements.length > 0 &&
    names.elements.every(e => e.isTypeOnly)
  );
}

function named(from: string, specifier: string, typeOnly: boolean): Import {
  if (specifier.startsWith('.')) return { target: relative(ROOT, resolve(ROOT, dirname(from), specifier)), own: true, typeOnly };
  const parts = specifier.split('/');
  const target = specifier.startsWith('@') ? parts.slice(0, 2).join('/') : specifier.startsWith('node:') ? specifier : parts[0]!;
  return { target, own: false, typeOnly };
}

/** Cycles among our own files that exist at run time, each as the files on its way. */
export function importCycles(files: SourceFile[]): string[][] {
  const byPath = new Map(files.map(file => [file.path, file]));
  const done = new Set<string>();
  const cycles: string[][] = [];
  const walk = (path: string, way: string[]): void => {
    const at = way.indexOf(path);
    if (at >= 0) return void cycles.push([...way.slice(at), path]);
    if (done.has(path)) return;
    for (const { target, own, typeOnly } of byPath.get(path)?.imports ?? []) if (own && !typeOnly) walk(target, [...way, path]);
    done.add(path);
  };
  for (const { path } of files) walk(path, []);
  return cycles;
}
