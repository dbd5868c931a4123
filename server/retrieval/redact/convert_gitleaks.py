#!/usr/bin/env python3
"""Writes gitleaks.toml, the table that redact.rs reads, from gitleaks' own config/gitleaks.toml.

    python3 convert_gitleaks.py path/to/gitleaks/config/gitleaks.toml COMMIT > gitleaks.toml

gitleaks runs a rule's expression over a whole file that has one of the rule's keywords. Here it runs once for each
keyword, beginning at it, so that its cost does not grow with the file. What stands before the keyword in the expression
is therefore cut off, and left out is what redact.rs does in its own way: names and their values, private keys,
headers, Kubernetes' secrets.
"""

import re
import sys
import tomllib

# Done elsewhere (assignments.rs, private_keys.rs, rules.toml, excluded_files.txt), or of no use without a path.
LEFT_OUT = {
    "curl-auth-header", "curl-auth-user", "freemius-secret-key", "generic-api-key", "hashicorp-tf-password",
    "kubernetes-secret-yaml", "nuget-config-password", "pkcs12-file", "private-key", "sidekiq-sensitive-url",
}
# Keywords that stand where the expression begins, where gitleaks' own stand elsewhere in it.
KEYWORDS = {
    "airtable-personnal-access-token": ["pat"],
    "jwt": ["eyj", "ewo"],
    "lob-api-key": ["lob"],
    "lob-pub-api-key": ["lob"],
    "gocardless-api-token": ["gocardless"],
    "new-relic-browser-api-token": ["new-relic", "newrelic", "new_relic"],
    "new-relic-insert-key": ["new-relic", "newrelic", "new_relic"],
    "new-relic-user-api-key": ["new-relic", "newrelic", "new_relic"],
    "typeform-api-token": ["typeform"],
    "atlassian-api-token": ["atlassian", "confluence", "jira"],
    "cloudflare-origin-ca-key": ["v1.0-"],
    "intra42-client-secret": ["s-s4t2ud-", "s-s4t2af-"],
    "sourcegraph-access-token": ["sgp_"],
    "slack-app-token": ["xapp-"],
    "twilio-api-key": ["sk"],
}
# Bytes before the keyword in which a match may begin.
BACK = {
    "azure-ad-client-secret": 6,
    "hashicorp-tf-api-token": 16,
    "maxmind-license-key": 40,
    "openai-api-key": 100,
    "microsoft-teams-webhook": 80,
    "facebook-access-token": 200,
}
BACK_KEYWORDS = {"microsoft-teams-webhook": [".webhook.office.com"]}
# Expressions that begin at a word though they do not say so: their keywords are short.
WORD = {"twilio-api-key", "harness-api-key"}
EXPRESSIONS = {
    # Without its third form, which is any git commit.
    "sourcegraph-access-token": r"(?i)sgp_(?:(?:[a-f0-9]{16}|local)_)?[a-f0-9]{40}",
    "slack-webhook-url": r"hooks\.slack\.com/(?:services|workflows|triggers)/([A-Za-z0-9+/_-]{20,80})",
    # The second form is a rule of its own, in rules.toml.
    "atlassian-api-token": None,
}
END = r"""(?:[\x60'"\s;]|\\[nr]|$)"""
CONTEXT = r"""[\w.-]{0,50}?"""


def main():
    path, commit = sys.argv[1:]
    with open(path, "rb") as file:
        source = tomllib.load(file)
    print(f"""# Rules of gitleaks (https://github.com/gitleaks/gitleaks, config/gitleaks.toml at {commit}),
# converted by convert_gitleaks.py, which says what is changed. Not edited by hand; own rules stand in rules.toml.
#
# MIT License
#
# Copyright (c) 2019 Zachary Rice
#
# Permission is hereby granted, free of charge, to any person obtaining a copy
# of this software and associated documentation files (the "Software"), to deal
# in the Software without restriction, including without limitation the rights
# to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
# copies of the Software, and to permit persons to whom the Software is
# furnished to do so, subject to the following conditions:
#
# The above copyright notice and this permission notice shall be included in all
# copies or substantial portions of the Software.
#
# THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
# IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
# FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
# AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
# LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
# OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
# SOFTWARE.
#
# id: gitleaks' name. keywords: in lower case; the expression begins at one. back: bytes before it in which it may begin.
# word: nothing of a word stands before it. check: what else must hold, as in rules.toml.
""")
    for rule in source["rules"]:
        name, expression = rule["id"], rule.get("regex")
        if name in LEFT_OUT:
            continue
        contextual = CONTEXT in expression
        if name in EXPRESSIONS:
            expression = EXPRESSIONS[name] or expression.split("|\\b(ATATT3")[0]
        keywords = KEYWORDS.get(name) or BACK_KEYWORDS.get(name) or rule["keywords"]
        expression = expression.replace(CONTEXT, "")
        fields = [("id", name), ("keywords", sorted(set(keywords)))]
        if name in BACK:
            fields.append(("back", BACK[name]))
        else:
            flags = re.match(r"\(\?i\)", expression)
            flags = flags.group() if flags else ""
            rest = expression[len(flags):]
            if rest.startswith(r"\b"):
                expression = flags + rest[2:]
                fields.append(("word", True))
        if name in WORD:
            fields.append(("word", True))
        if contextual:
            fields.append(("check", "contextual"))
        fields.append(("regex", expression))
        print("[[rules]]")
        for key, value in fields:
            if isinstance(value, bool):
                value = "true" if value else "false"
            elif isinstance(value, list):
                value = "[" + ", ".join(f'"{it}"' for it in value) + "]"
            elif isinstance(value, str):
                value = f"'''{value}'''" if key == "regex" else f'"{value}"'
            print(f"{key} = {value}")
        print()


main()
