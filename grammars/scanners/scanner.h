// Included first by every scanner here: gives its functions other names than those that the grammar's crate
// links, and makes a copy of the grammar that calls them.
#ifndef TAPER_SCANNER_H_
#define TAPER_SCANNER_H_

#include "tree_sitter/alloc.h"
#include "tree_sitter/parser.h"

#include <stddef.h>
#include <string.h>

#define tree_sitter_bash_external_scanner_create hardened_bash_create
#define tree_sitter_bash_external_scanner_destroy hardened_bash_destroy
#define tree_sitter_bash_external_scanner_scan hardened_bash_scan
#define tree_sitter_bash_external_scanner_serialize hardened_bash_serialize
#define tree_sitter_bash_external_scanner_deserialize hardened_bash_deserialize

#define tree_sitter_python_external_scanner_create hardened_python_create
#define tree_sitter_python_external_scanner_destroy hardened_python_destroy
#define tree_sitter_python_external_scanner_scan hardened_python_scan
#define tree_sitter_python_external_scanner_serialize hardened_python_serialize
#define tree_sitter_python_external_scanner_deserialize hardened_python_deserialize

#define tree_sitter_ruby_external_scanner_create hardened_ruby_create
#define tree_sitter_ruby_external_scanner_destroy hardened_ruby_destroy
#define tree_sitter_ruby_external_scanner_scan hardened_ruby_scan
#define tree_sitter_ruby_external_scanner_serialize hardened_ruby_serialize
#define tree_sitter_ruby_external_scanner_deserialize hardened_ruby_deserialize

// A grammar of ABI 14 ends where the names of ABI 15 begin.
#define HARDENED(grammar)                                                                                              \
    const TSLanguage *tree_sitter_##grammar(void);                                                                     \
    /* The grammar that its crate links, with the scanner of this file. Not to be called by two threads at once. */    \
    const TSLanguage *hardened_##grammar(void) {                                                                       \
        static TSLanguage language;                                                                                    \
        const TSLanguage *original = tree_sitter_##grammar();                                                          \
        memcpy(&language, original, original->abi_version < 15 ? offsetof(TSLanguage, name) : sizeof(TSLanguage));     \
        language.external_scanner.create = hardened_##grammar##_create;                                                \
        language.external_scanner.destroy = hardened_##grammar##_destroy;                                              \
        language.external_scanner.scan = hardened_##grammar##_scan;                                                    \
        language.external_scanner.serialize = hardened_##grammar##_serialize;                                          \
        language.external_scanner.deserialize = hardened_##grammar##_deserialize;                                      \
        return &language;                                                                                              \
    }

#endif
