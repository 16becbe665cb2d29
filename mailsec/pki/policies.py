"""Certificate policies as a graph (RFC 9618, which replaces the tree of RFC 5280 §6.1).

The tree of RFC 5280 grows exponentially with mappings (CVE-2023-0464); the graph has at most one node for a policy at each depth. Cost is
linear in the policies and mappings of the path.
"""

from __future__ import annotations

from mailsec.x509.extensions import ANY_POLICY

__all__ = ["PolicyGraph"]


class _Node:
    __slots__ = ("expected", "parents")

    def __init__(self, expected: set[str], parents: set[str]) -> None:
        self.expected = expected
        self.parents = parents
        """Policies of the nodes one level above that this one hangs from."""


class PolicyGraph:
    """valid_policy_graph: one dictionary for each depth, from the policy to its node. Falsy when it is NULL."""

    __slots__ = ("levels",)

    def __init__(self) -> None:
        # RFC 9618 §5.2, RFC 5280 §6.1.2 (a): depth 0 holds anyPolicy alone.
        self.levels: list[dict[str, _Node]] = [{ANY_POLICY: _Node({ANY_POLICY}, set())}]

    def __bool__(self) -> bool:
        return bool(self.levels)

    def process(self, policies: tuple[str, ...] | None, *, any_allowed: bool) -> None:
        """RFC 9618 §5.3, RFC 5280 §6.1.3 (d) and (e), for the policies of the next certificate; `any_allowed` is the condition of (d)(2)."""
        if not self.levels:
            return
        if policies is None:
            self.levels = []
            return
        above = self.levels[-1]
        by_expected: dict[str, set[str]] = {}
        for policy, node in above.items():
            for expected in node.expected:
                by_expected.setdefault(expected, set()).add(policy)
        level: dict[str, _Node] = {}
        for policy in policies:
            if policy == ANY_POLICY:
                continue
            # RFC 9618 §5.3 (d)(1)(i): a node under every node that expects it.
            parents = by_expected.get(policy)
            if parents is not None:
                level[policy] = _Node({policy}, parents)
            # RFC 9618 §5.3 (d)(1)(ii): else under anyPolicy.
            elif ANY_POLICY in above:
                level[policy] = _Node({policy}, {ANY_POLICY})
        # RFC 9618 §5.3 (d)(2): anyPolicy stands for all that is expected and not named.
        if ANY_POLICY in policies and any_allowed:
            for policy, parents in by_expected.items():
                if policy not in level:
                    level[policy] = _Node({policy}, parents)
        self.levels.append(level)
        self._prune()

    def map(self, mappings: tuple[tuple[str, str], ...], *, allowed: bool) -> None:
        """RFC 9618 §5.4, RFC 5280 §6.1.4 (b), for the mappings of the certificate that was processed last."""
        if not self.levels:
            return
        level = self.levels[-1]
        targets: dict[str, set[str]] = {}
        for issuer_policy, subject_policy in mappings:
            targets.setdefault(issuer_policy, set()).add(subject_policy)
        for policy, subject_policies in targets.items():
            if not allowed:
                # RFC 9618 §5.4 (b)(2): what would be mapped is gone.
                level.pop(policy, None)
            elif policy in level:
                level[policy].expected = subject_policies
            elif ANY_POLICY in level:
                level[policy] = _Node(subject_policies, {ANY_POLICY})
        self._prune()

    def constrained(self, wanted: frozenset[str]) -> frozenset[str]:
        """RFC 9618 §5.5, RFC 5280 §6.1.5 (g): the user-constrained policy set for the user-initial-policy-set `wanted`."""
        found: set[str] = set()
        for level in self.levels[1:]:
            found.update(policy for policy, node in level.items() if policy != ANY_POLICY and ANY_POLICY in node.parents)
        if self.levels and ANY_POLICY in self.levels[-1]:
            found.add(ANY_POLICY)
        if ANY_POLICY in wanted:
            return frozenset(found)
        if ANY_POLICY in found:
            return wanted
        return frozenset(found & wanted)

    def _prune(self) -> None:
        """RFC 9618 §5.3 (d)(3): nodes without children go, from the last level but one upwards; without nodes the graph is NULL."""
        for index in range(len(self.levels) - 1, 0, -1):
            needed: set[str] = set()
            for node in self.levels[index].values():
                needed |= node.parents
            above = self.levels[index - 1]
            for policy in [policy for policy in above if policy not in needed]:
                del above[policy]
        if not self.levels[-1]:
            self.levels = []
