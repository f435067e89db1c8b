"""Deliberate bugs, each of which the tests must catch: ``python tests/mutants.py [--list] [--only NAME ...]``.

Every mutant is one edit of a copy of ``src``; the named tests must fail on it, and all of them must pass without it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 120
"""Seconds after which a mutant that never ends counts as killed."""


@dataclass(frozen=True)
class Mutant:
    """One bug: ``old`` stands exactly once in src/unmask/``file``; ``tests`` are node ids below tests/."""

    name: str
    file: str
    old: str
    new: str
    why: str
    tests: tuple[str, ...]


SUMS = "test_engine.py::test_probabilities_of_all_sequences_sum_to_one[table]"
DRAWS = "test_engine.py::test_draws_follow_the_likelihood[table]"
JOINT = "test_engine.py::test_one_token_per_step_in_any_order_is_the_joint_law[table]"
SUBSTEPS = "test_engine.py::test_substeps_are_a_law_of_their_own[table-2]"
WEIGHTS = "test_schedules.py::test_the_weight_makes_every_position_count_once"
LOSS = "test_objectives.py::test_the_training_loss_estimates_the_bound"
NELBO = "test_objectives.py::test_nelbo_of_the_exact_denoiser_is_the_entropy[markov]"
CODEC = "test_codec.py::"
HOSTILE = "contract/test_hostile.py::"
TIES = "test_scores_selectors.py::test_scores_within_the_grid_tie_and_the_lowest_position_wins"

PEEK = """view = look.at_masked(view)
        guess = source(look.request(view.log_probs, view, view.rows.clamp(min=0), view.rows >= 0))
        view = replace(view, log_probs=view.log_probs.gather(-1, guess[..., None]).expand_as(view.log_probs))"""

MUTANTS = (
    # The loop.
    Mutant(
        "order-looks-at-the-candidate",
        "engine/loop.py",
        "view = look.at_masked(view)",
        PEEK,
        "scores read the probability of the drawn symbol, as MaskGIT does: there is no such likelihood",
        (SUMS,),
    ),
    Mutant(
        "stale-tokens-in-substeps",
        "engine/loop.py",
        "look.again(moved.tokens, view, choice, mine)",
        "look.again(view.tokens, view, choice, mine)",
        "later sub-steps do not see the symbols of earlier ones",
        ("test_engine.py::test_substeps_split_a_choice_into_parts_that_cost_their_share",),
    ),
    Mutant(
        "stale-tokens-between-steps",
        "engine/loop.py",
        "tokens=placed(state.tokens, moved.tokens, view)",
        "tokens=state.tokens if state.step == 0 else placed(state.tokens, moved.tokens, view)",
        "the first step forgets what it wrote",
        (JOINT, DRAWS),
    ),
    Mutant(
        "log-prob-over-every-position",
        "engine/accounting.py",
        "if not (choice.full and mine is choice.valid):\n            before",
        "if entropies:\n            before",
        "padding counts in the log-probability as if it had been unmasked",
        (SUMS,),
    ),
    Mutant(
        "tilt-not-renormalised",
        "engine/asking.py",
        "torch.log_softmax(law + choice.tilt, dim=-1)",
        "law + choice.tilt",
        "a tilted law that does not sum to one",
        ("test_engine.py::test_a_tilt_changes_the_law_and_its_likelihood",),
    ),
    Mutant(
        "finished-rows-are-asked",
        "engine/state.py",
        "for i, count in enumerate(state.left) if count]",
        "for i, count in enumerate(state.left)]",
        "rows without masks cost network calls",
        ("test_engine.py::test_finished_rows_are_not_asked_for",),
    ),
    Mutant(
        "still-rows-are-asked",
        "engine/choosing.py",
        "enumerate(choice.valid.any(1).tolist())",
        "enumerate((choice.rows >= -1).any(1).tolist())",
        "ancestral steps that unmask nothing in a row cost a network call all the same",
        ("test_engine.py::test_ancestral_asks_for_the_rows_that_move_at_their_time",),
    ),
    Mutant(
        "partial-passes-are-free",
        "engine/accounting.py",
        "calls=self.calls + look.passes * mine.any(1) * share",
        "calls=self.calls + 0 * mine.any(1) * share",
        "sub-steps are left out of the count of network calls",
        ("test_engine.py::test_substeps_split_a_choice_into_parts_that_cost_their_share",),
    ),
    Mutant(
        "substeps-backwards",
        "engine/choosing.py",
        "part = place * substeps //",
        "part = substeps - 1 - place * substeps //",
        "the rows that were preferred come last",
        ("test_caching.py::test_every_step_begins_with_a_fresh_pass",),
    ),
    # Caches.
    Mutant(
        "cache-of-the-first-step",
        "engine/asking.py",
        "lambda: self.root.partial(tokens, rows, self.cache, time=view.time)",
        "lambda: self.root.partial(tokens, rows, self.root.full(0 * tokens + self.root.mask_id)[1], time=view.time)",
        "sub-steps attend to keys and values that were never refreshed since all was masked",
        ("test_caching.py::test_every_step_begins_with_a_fresh_pass",),
    ),
    Mutant(
        "values-scattered-to-other-rows",
        "networks/transformer.py",
        "kept_v.scatter_(2, index, v)",
        "kept_v.scatter_(2, index.flip(2), v)",
        "a partial pass writes its values to the wrong positions",
        ("test_transformer.py::test_partial_over_all_rows_is_a_full_pass[learned]",),
    ),
    Mutant(
        "keys-never-written",
        "networks/transformer.py",
        "kept_k.scatter_(2, index, k)",
        "kept_k.scatter(2, index, k)",
        "a partial pass attends to the keys of the full pass",
        ("test_transformer.py::test_partial_is_exact_for_one_layer_only[learned-1]",),
    ),
    Mutant(
        "positions-of-the-first-rows",
        "networks/positions.py",
        "return table[:count] if rows is None else table[rows]",
        "return table[:count] if rows is None else table[: rows.shape[1]]",
        "rows of a partial pass are embedded as if they stood at the beginning",
        ("test_transformer.py::test_partial_is_exact_for_one_layer_only[learned-1]",),
    ),
    Mutant(
        "what-follows-the-end-is-seen",
        "networks/transformer.py",
        "return ~(end & F.pad(end[:, :-1], (1, 0)))[:, None, None]",
        "return torch.ones_like(end)[:, None, None]",
        "logits depend on how far a batch is filled up",
        ("test_lengths.py::test_what_follows_the_end_is_not_seen[True]",),
    ),
    Mutant(
        "an-end-can-be-drawn",
        "networks/transformer.py",
        "value=-torch.inf)",
        "value=0.0)",
        "a sequence of given length ends early",
        ("test_lengths.py::test_the_end_matters_and_is_never_drawn",),
    ),
    Mutant(
        "lengths-are-free",
        "models/model.py",
        "return -self._length_law().log().to(tokens.device)[(tokens != self.end).sum(1)]",
        "return 0 * self._length_law().log().to(tokens.device)[(tokens != self.end).sum(1)]",
        "bits per character leave out what the length costs",
        ("test_sequence_recipes.py::test_given_lengths_are_drawn_and_paid_for",),
    ),
    Mutant(
        "block-cache-never-refreshed",
        "denoisers/caches.py",
        "return same.any(1) & (before.tokens[place] == seen).all(1), place",
        "return same.any(1), place",
        "the next block reads what was remembered for the first",
        ("test_caching.py::test_remembering_changes_nothing_but_the_cost[1-dual-random]",),
    ),
    Mutant(
        "block-cache-overwritten",
        "denoisers/caches.py",
        "kept.index_copy(0, fresh, other)",
        "kept.index_copy_(0, fresh, other)",
        "a state that is kept and continued twice finds another one's cache",
        ("test_caching.py::test_a_state_may_be_continued_twice[dual]",),
    ),
    Mutant(
        "block-cache-of-a-neighbour",
        "denoisers/caches.py",
        "_mapped(lambda kept: kept[place], before.cache)",
        "_mapped(lambda kept: kept[: len(place)], before.cache)",
        "when a row of the batch is finished the others read its cache",
        ("test_caching.py::test_rows_do_not_depend_on_their_neighbours[dual-random]",),
    ),
    Mutant(
        "block-cache-sees-the-block",
        "denoisers/caches.py",
        "tokens.masked_fill(block == current[:, None], self.mask_id)",
        "tokens",
        "every step is a full pass: the cache saves nothing",
        ("test_caching.py::test_calls_are_counted_in_shares_of_a_pass[False-1-4.0-random]",),
    ),
    Mutant(
        "block-passes-are-free",
        "denoisers/caches.py",
        "+ again * (last - first)",
        "+ 0 * again * (last - first)",
        "passes over a block are left out of the count of network calls",
        ("test_caching.py::test_a_visible_symbol_in_the_block_costs_a_partial_pass",),
    ),
    Mutant(
        "time-of-the-whole-batch",
        "base/types.py",
        "n: v[there] for n in names if isinstance",
        "n: v[there] for n in names - {'time'} if isinstance",
        "after rows that stay still were left out, the others get the wrong time",
        ("test_engine.py::test_ancestral_asks_for_the_rows_that_move_at_their_time",),
    ),
    Mutant(
        "entropies-of-later-sub-steps",
        "engine/accounting.py",
        "torch.where(mine, value, before[n]) for n, value in found.items()",
        "torch.where(choice.valid if n == 'entropies' else mine, value, before[n]) for n, value in found.items()",
        "a later sub-step overwrites the entropies of the laws that earlier symbols came from",
        ("test_results.py::test_entropies_are_those_of_the_laws_that_symbols_came_from",),
    ),
    Mutant(
        "partial-passes-take-no-time",
        "engine/asking.py",
        "base = shaped(produce(), view.tokens, rows, self.root)\n        self.seconds +=",
        "base = shaped(produce(), view.tokens, rows, self.root)\n        self.seconds = self.seconds or",
        "network seconds leave out the partial passes",
        ("test_results.py::test_wall_time_is_split_into_network_and_the_rest",),
    ),
    Mutant(
        "blocks-are-ignored",
        "command_line/commands/orders.py",
        "return spaced if options.blocks is None else",
        "return spaced if True else",
        "the command line takes --blocks and forgets it",
        ("test_cli.py::TestSample::test_settings_reach_the_order",),
    ),
    Mutant(
        "top-p-before-temperature",
        "command_line/commands/orders.py",
        "nucleus(tempered(denoiser, options.temperature), options.top_p)",
        "tempered(nucleus(denoiser, options.top_p), options.temperature)",
        "top-p is applied to the law before tempering",
        ("test_cli.py::TestSample::test_temperature_and_top_p_change_the_law",),
    ),
    # Symbols.
    Mutant(
        "temperature-in-the-draw",
        "orders/sources.py",
        "inverse_cdf(request.log_probs, u)",
        "inverse_cdf((request.log_probs / 0.8).log_softmax(-1), u)",
        "symbols come from a sharper law than the one whose log-probability is reported",
        (DRAWS,),
    ),
    Mutant(
        "one-uniform-for-the-batch",
        "orders/sources.py",
        "noise.SYMBOL, items[:, None]",
        "noise.SYMBOL, 0 * items[:, None]",
        "all rows of a batch draw with the same noise",
        ("test_engine.py::test_rows_draw_with_noise_of_their_own",),
    ),
    Mutant(
        "noise-by-place-in-the-batch",
        "orders/sources.py",
        "items = request.items if request.item_ids is None else request.item_ids",
        "items = request.items",
        "a set drawn in batches is another set",
        ("contract/test_item_ids.py::test_batches_change_nothing",),
    ),
    Mutant(
        "masks-by-place-in-the-batch",
        "masking/corruption.py",
        "noise.MASK, self.items[:, None]",
        "noise.MASK, torch.arange(len(self.items))[:, None]",
        "a bound depends on how its items are batched",
        ("contract/test_item_ids.py::test_batches_change_nothing",),
    ),
    Mutant(
        "one-uniform-for-the-row",
        "orders/sources.py",
        "request.rows, request.step",
        "0 * request.rows, request.step",
        "all positions of a step draw with the same noise",
        (DRAWS, "test_engine.py::test_rows_draw_with_noise_of_their_own"),
    ),
    Mutant(
        "draws-impossible-symbols",
        "orders/sources.py",
        "searchsorted(total, levels * total[:, -1:], right=True)",
        "searchsorted(total, levels * total[:, -1:]) + 1",
        "the inverse CDF is one symbol off",
        (DRAWS,),
    ),
    Mutant(
        "float32-uniforms",
        "base/noise.py",
        "(bits.astype(np.float64) + 0.5) * 2.0**-52",
        "((bits.astype(np.float64) + 0.5) * 2.0**-52).astype(np.float32).astype(np.float64)",
        "24 bits: rare symbols vanish, and one is reached exactly",
        ("test_noise.py::test_uniforms_are_uniform_and_have_all_their_bits",),
    ),
    Mutant(
        "float32-gumbel",
        "base/noise.py",
        "return -torch.log(-torch.log(uniform(seed, stream, first, second, third)))",
        "return -torch.log(-torch.log(uniform(seed, stream, first, second, third).float()))",
        "Gumbel noise ends at 16.6, so large classes win too often",
        ("test_noise_precision.py::test_positions_follow_noise_that_float32_cannot_tell_apart[moment]",),
    ),
    Mutant(
        "order-and-symbols-share-noise",
        "base/noise.py",
        "ORDER, SYMBOL = 1, 2",
        "ORDER, SYMBOL = 1, 1",
        "the public noise of the order decides the private noise of the symbols",
        ("test_noise.py::test_every_argument_gives_unrelated_numbers",),
    ),
    # Randomness, resuming, damaged files.
    Mutant(
        "ids-wrap",
        "base/noise.py",
        "        _whole(name, found[wrong].flat[0].item(), low, WORD + low)\n",
        "        pass\n",
        "order ids and positions repeat after 2^32",
        ("contract/test_randomness.py::test_numbers_out_of_range_are_refused_by_name",),
    ),
    Mutant(
        "ids-wrap-where-they-enter",
        "base/noise.py",
        "wrong = (ids < 0) | (ids >= WORD)",
        "wrong = ids < 0",
        "an order id of 2^32 gets the order of 0",
        ("contract/test_randomness.py::test_order_ids_that_would_repeat_others_are_refused",),
    ),
    Mutant(
        "streams-share-a-generator",
        "base/noise.py",
        "(block, rest[0], rest[1], rest[2])",
        "(block, rest[0], rest[1], 0 * rest[2])",
        "all purposes of one step draw the same numbers",
        ("contract/test_randomness.py::test_a_state_tells_its_triple_so_no_two_share_one",),
    ),
    Mutant(
        "parts-of-a-step-share-boards",
        "recipes/sudoku.py",
        "(step << 2) + part",
        "(step << 2)",
        "symmetries are drawn from the numbers that made the boards",
        ("contract/test_randomness.py::test_every_part_of_a_step_has_a_seed_of_its_own",),
    ),
    Mutant(
        "old-runs-change-their-batches",
        "training/resuming.py",
        "return int(found) if run.randomness == RANDOMNESS else run.randomness",
        "return run.randomness",
        "a run of an older version goes on with other numbers, or not at all",
        ("contract/test_training_contract.py::test_an_old_run_goes_on_with_its_old_batches",),
    ),
    Mutant(
        "fewer-steps-than-done",
        "training/resuming.py",
        "if int(place.name) > run.optimiser.steps:",
        "if int(place.name) < 0:",
        "a run told to stop earlier exports what it has under a false number of steps",
        ("contract/test_training_contract.py::test_fewer_steps_than_done_are_refused",),
    ),
    Mutant(
        "unknown-fields-may-be-anything",
        "training/resuming.py",
        "usual.get(name, new.get(name))",
        "new.get(name)",
        "a setting that the folder's version did not know changes silently",
        ("contract/test_training_contract.py::test_a_field_that_an_older_version_lacked_had_its_default",),
    ),
    Mutant(
        "moments-are-not-looked-at",
        "training/resuming.py",
        "    checkpoints.fill({k: torch.empty_like(v) for k, v in kept.items()}, found, path)\n",
        "",
        "NaN or another network's moments reach the optimiser",
        ("contract/test_training_contract.py::test_a_damaged_checkpoint_is_named",),
    ),
    Mutant(
        "data-change-under-training",
        "recipes/sequences.py",
        "if self.fingerprint and fingerprint(data) != self.fingerprint:",
        "if not data:",
        "a folder replaced while training gives other sequences",
        ("contract/test_training_contract.py::test_data_replaced_while_training_are_refused",),
    ),
    Mutant(
        "two-train-in-one-folder",
        "training/locks.py",
        "fcntl.LOCK_EX | fcntl.LOCK_NB",
        "fcntl.LOCK_SH | fcntl.LOCK_NB",
        "two processes sweep and replace each other's checkpoints",
        ("contract/test_training_contract.py::test_a_failure_frees_the_folder",),
    ),
    Mutant(
        "gpu-noise-starts-again",
        "base/devices.py",
        "        _module(kind).set_rng_state(states[kind], *_number(device))\n",
        "        pass\n",
        "dropout on a GPU repeats after a resume, and the caller's state moves",
        ("contract/test_training_contract.py::test_checkpoints_hold_the_random_state_of_the_device",),
    ),
    Mutant(
        "bfloat16-of-amx-only",
        "base/devices.py",
        '("_is_amx_tile_supported", "_is_avx512_bf16_supported")',
        '("_is_amx_tile_supported",)',
        "CPUs with AVX-512's bfloat16 train at half their speed",
        ("contract/test_checkpoint_contract.py::test_bfloat16_is_fast_on_cpus_with_either_unit",),
    ),
    Mutant(
        "types-of-a-config-are-not-looked-at",
        "models/loading.py",
        "if name in values and not _fits(values[name], hint):",
        "if name in values and not name:",
        "a network of vocab_size true, or a vocabulary that is a list, loads",
        ("contract/test_checkpoint_contract.py::test_wrong_fields_are_named",),
    ),
    Mutant(
        "whole-numbers-as-weights",
        "base/checkpoints.py",
        "if found.dtype != own.dtype and not",
        "if found.dtype != own.dtype and own.dtype is None and not",
        "int64 weights are taken for float32 ones",
        ("contract/test_checkpoint_contract.py::test_wrong_weights_are_named",),
    ),
    # Denoisers.
    Mutant(
        "nucleus-drops-the-crossing-token",
        "denoisers/wrappers.py",
        "beyond = before >= p",
        "beyond = before + values.exp() >= p",
        "the symbol that crosses p is lost, as in two public code bases",
        ("test_wrappers.py::test_the_nucleus_keeps_the_symbol_that_crosses_p",),
    ),
    Mutant(
        "temperature-is-the-exponent",
        "denoisers/wrappers.py",
        ".div_(temperature)",
        ".mul_(temperature)",
        "low temperatures flatten the law",
        ("test_wrappers.py::test_temperature_is_an_exponent",),
    ),
    Mutant(
        "guidance-towards-the-other",
        "denoisers/wrappers.py",
        "ours + scale * ratio",
        "ours - scale * ratio",
        "guidance has the wrong sign",
        ("test_wrappers.py::test_guidance_moves_away_from_the_other",),
    ),
    # Orders and plans.
    Mutant(
        "plan-off-by-one",
        "orders/selectors.py",
        "(len(view.tokens),), fixed, dtype",
        "(len(view.tokens),), fixed + 1, dtype",
        "a plan of k per step unmasks k + 1",
        (JOINT, "test_engine.py::test_mixed_masked_counts_keep_their_own_plans"),
    ),
    Mutant(
        "plan-backwards",
        "orders/selectors.py",
        "for size in sizes:",
        "for size in reversed(sizes):",
        "the last step of a plan comes first",
        ("test_scores_selectors.py::test_plans_are_followed_by_what_is_left",),
    ),
    Mutant(
        "ranks-among-all-positions",
        "orders/selectors.py",
        "torch.where(masked, keys, -torch.inf).sort(",
        "keys.sort(",
        "visible positions take part in the ranking",
        ("test_scores_selectors.py::test_masked_positions_go_before_visible_ones_whatever_they_score",),
    ),
    Mutant(
        "no-rounding-grid",
        "orders/selectors.py",
        "/ GRID).round_()",
        "/ GRID)",
        "float noise decides between equal scores",
        (TIES,),
    ),
    Mutant(
        "ties-to-the-highest-position",
        "orders/selectors.py",
        "return torch.where(masked, keys, -torch.inf).sort(dim=1, descending=True, stable=True)",
        "found, place = torch.where(masked, keys, -torch.inf).flip(1).sort(dim=1, descending=True, stable=True)\n"
        "    return found, keys.shape[1] - 1 - place",
        "ties go to the highest position",
        (TIES,),
    ),
    Mutant(
        "threshold-may-choose-nothing",
        "orders/selectors.py",
        "take(view, values, reached.sum(1).clamp(min=1))",
        "take(view, values, reached.sum(1))",
        "nothing reaches the threshold and nothing is unmasked",
        ("test_scores_selectors.py::test_threshold_takes_all_that_reach_it_and_the_best_otherwise",),
    ),
    Mutant(
        "budget-counts-the-largest",
        "orders/selectors.py",
        "entropies.cumsum(1) - entropies.cummax(1).values",
        "entropies.cumsum(1)",
        "the entropy budget is spent on the largest member too",
        ("test_scores_selectors.py::test_entropy_budget_by_hand",),
    ),
    Mutant(
        "blocks-ignored",
        "orders/selectors.py",
        "return view.within(block == current)",
        "return view.within(block >= current)",
        "positions of later blocks may be chosen",
        ("test_scores_selectors.py::test_blocks_go_from_left_to_right",),
    ),
    Mutant(
        "ancestral-leaves-masks",
        "orders/selectors.py",
        "hidden[-1] = 0.0",
        "hidden[-1] = hidden[-1] + 0.01",
        "the last ancestral step leaves some positions masked",
        ("test_engine.py::test_ancestral_leaves_no_mask",),
    ),
    Mutant(
        "ancestral-from-an-uncut-start",
        "orders/selectors.py",
        "hidden / hidden[0]",
        "hidden / 1.0",
        "with a cut-off, the first ancestral step unmasks too many",
        ("test_engine.py::test_ancestral_unmasks_with_the_probability_of_the_reverse_process",),
    ),
    Mutant(
        "order-ignores-order-id",
        "orders/scores.py",
        "else view.order_ids[:, None]",
        "else 0 * view.order_ids[:, None]",
        "every row gets the same random order",
        ("test_engine.py::test_random_orders_are_public_and_uniform",),
    ),
    Mutant(
        "noise-frozen-over-steps",
        "orders/scores.py",
        "_positions(view).long(), 1 + view.step)",
        "_positions(view).long(), 1)",
        "noise on a score is the same at every step",
        ("test_scores_selectors.py::test_noise_on_a_score_changes_with_step_order_and_seed",),
    ),
    Mutant(
        "margin-is-confidence",
        "orders/scores.py",
        "return best[..., 0] - (best[..., 1] if best.shape[-1] > 1 else 0)",
        "return best[..., 0]",
        "the second largest probability is not subtracted",
        ("test_scores_selectors.py::test_confidence_margin_and_entropy_by_hand",),
    ),
    # Training losses.
    Mutant(
        "weight-one-for-one-over-t",
        "masking/schedules.py",
        "return -self.slope(t) / (1 - self.alpha(t))",
        "return torch.ones_like(t)",
        "MaskGIT's unweighted loss is not a bound",
        (f"{WEIGHTS}[linear]", f"{LOSS}[linear]"),
    ),
    Mutant(
        "masks-with-alpha",
        "masking/corruption.py",
        "_hidden_with(maskable, 1 - schedule.alpha(t), generator)",
        "_hidden_with(maskable, schedule.alpha(t), generator)",
        "positions are masked with the probability of staying visible",
        (
            f"{WEIGHTS}[cosine]",
            "test_schedules.py::test_independent_masks_have_the_probability_of_their_time",
        ),
    ),
    Mutant(
        "exact-count-without-weight",
        "masking/corruption.py",
        "size.double() / count.clamp(min=1)",
        "torch.ones_like(size).double()",
        "small masks count too little",
        (f"{WEIGHTS}[exact count]", f"{LOSS}[exact count]", NELBO),
    ),
    Mutant(
        "count-never-all",
        "masking/corruption.py",
        "(1 + torch.floor(size * levels).long()).clamp(max=size)",
        "(1 + torch.floor((size - 1) * levels).long()).clamp(max=size)",
        "the fully masked sequence is never trained on",
        ("test_schedules.py::test_exact_counts_are_exact_stratified_and_uniform", NELBO),
    ),
    Mutant(
        "low-discrepancy-per-rank",
        "masking/corruption.py",
        "device=generator.device) / total) % 1",
        "device=generator.device) / count) % 1",
        "times are spread over one rank's batch instead of the global one",
        ("test_schedules.py::test_ranks_together_draw_one_global_batch",),
    ),
    Mutant(
        "discrete-time-weight-of-the-limit",
        "masking/corruption.py",
        "steps * (before - now) / (1 - now)",
        "schedule.weight(rising[place + 1])",
        "the T-step loss gets the weight of continuous time",
        (f"{WEIGHTS}[discrete cosine]", f"{LOSS}[cosine grid]"),
    ),
    Mutant(
        "loss-on-all-positions",
        "masking/objectives.py",
        "torch.where(masked, losses, 0.0)",
        "losses",
        "visible positions are scored",
        ("test_objectives.py::test_visible_positions_cost_nothing",),
    ),
    Mutant(
        "loss-per-masked-token",
        "masking/objectives.py",
        ".sum(1).mean() / tokens.shape[1]",
        ".sum() / masked.sum()",
        "averaging over masked positions weighs micro-batches by what was masked",
        ("test_objectives.py::test_the_loss_is_the_same_for_any_split_into_micro_batches", f"{LOSS}[linear]"),
    ),
    Mutant(
        "prior-forgotten",
        "masking/enumeration.py",
        "length * end * math.log(vocab_size)",
        "0.0",
        "MD4's code leaves the prior term out, so cut-offs do not compare",
        ("test_objectives.py::test_a_cut_off_loses_what_the_end_terms_add",),
    ),
    Mutant(
        "nelbo-scores-the-prompt",
        "engine/likelihood.py",
        "maskable = ~_visible(visible, tokens)",
        "maskable = torch.ones_like(_visible(visible, tokens))",
        "the prompt is masked and scored",
        ("test_objectives.py::test_nelbo_does_not_score_a_prompt",),
    ),
    # Kernels without a likelihood.
    Mutant(
        "commit-scores-the-tempered-law",
        "kernels/commit.py",
        "return take_symbols(base, drawn.symbols).exp()",
        "return take_symbols(_law(view), drawn.symbols).exp()",
        "low_confidence ranks by the tempered probability where the denoiser is wrapped",
        ("test_commit.py::test_the_score_is_the_probability_before_tempering",),
    ),
    Mutant(
        "commit-peeks-at-other-symbols",
        "kernels/commit.py",
        "ids, view.step, seed, ids)",
        "ids, view.step + 1, seed, ids)",
        "the rule judges symbols that the loop does not write, and the bias is gone",
        ("test_commit.py::test_maskgit_one_position_per_step[chain-1]",),
    ),
    Mutant(
        "commit-noise-stays-the-same",
        "kernels/commit.py",
        "rows_of(view), 1 + view.step)",
        "rows_of(view), 1)",
        "MaskGIT's choice noise is not drawn anew at each step",
        ("test_commit.py::test_maskgit_one_position_per_step[chain-1]",),
    ),
    Mutant(
        "commit-claims-a-likelihood",
        "kernels/commit.py",
        "torch.full_like(state.log_prob, torch.nan)",
        "state.log_prob",
        "a biased sampler reports the sum of the kept symbols' log-probabilities",
        ("test_commit.py::test_a_rule_that_does_not_look_is_choosing_first[table]",),
    ),
    Mutant(
        "commit-anneals-one-step-late",
        "kernels/commit.py",
        "(step + 1) / steps)",
        "step / steps)",
        "the last step but one is still noisy, the first too hot",
        ("test_commit.py::test_annealing_reaches_zero_at_the_last_step",),
    ),
    Mutant(
        "remask-touches-the-prompt",
        "kernels/remask/pieces.py",
        "where = where & state.free & ~state.masked",
        "where = where & ~state.masked",
        "symbols that the user gave are hidden and drawn again",
        ("test_remask.py::test_the_prompt_stays_and_the_trace_tells_everything[cap]",),
    ),
    Mutant(
        "remask-without-compensation",
        "kernels/remask/predictors.py",
        "interval.alpha_s - (1 - hidden) * interval.alpha_t",
        "interval.alpha_s - interval.alpha_t",
        "masked positions unmask as if none were hidden, so fewer than alpha are visible",
        ("test_remask.py::test_the_visible_fraction_stays_on_alpha[cap]",),
    ),
    Mutant(
        "remask-noise-stays-the-same",
        "kernels/remask/pieces.py",
        "places[None], state.step)",
        "places[None], 0)",
        "the same positions are hidden and unmasked at every step",
        ("test_remask.py::test_the_law_of_remdm_is_the_product_of_its_steps[cap]",),
    ),
    Mutant(
        "p2-replaces-what-stays",
        "kernels/remask/predictors.py",
        "write(state, drawn, kept & before.masked)",
        "write(state, drawn, kept)",
        "visible symbols that were kept are overwritten by fresh draws",
        ("test_remask.py::test_p2_keeps_its_counts_and_hides_what_scores_lowest",),
    ),
    Mutant(
        "gibbs-redraws-the-most-reliable",
        "kernels/remask/correctors.py",
        "View(state.tokens, visible), -scores",
        "View(state.tokens, visible), scores",
        "the corrector hides the symbols that it should trust",
        ("test_remask.py::test_the_informed_corrector_redraws_the_least_reliable",),
    ),
    # Learnt schedules and baselines.
    Mutant(
        "genmd4-wrong-sign-of-leave-one-out",
        "variants/genmd4.py",
        "pair.mean(1) + (chance - chance.detach())",
        "pair.mean(1) - (chance - chance.detach())",
        "the score-function part of the powers' gradient points uphill",
        ("test_genmd4.py::test_two_masks_have_the_right_gradient_on_average_and_plain_autograd_has_not",),
    ),
    Mutant(
        "genmd4-no-jacobian-in-training",
        "variants/genmd4.py",
        "return (1 - first) * inside + sum",
        "return inside + sum",
        "times are uniform on first..1, so the mean is not yet the integral (as in MD4's code)",
        ("test_genmd4.py::test_training_estimates_the_bound_and_its_gradient",),
    ),
    Mutant(
        "genmd4-no-jacobian-in-the-nelbo",
        "variants/genmd4.py",
        "draws.append((1 - first) * losses(",
        "draws.append(losses(",
        "the reported bound is too large",
        ("test_genmd4.py::test_the_estimator_is_unbiased_and_knows_its_error",),
    ),
    Mutant(
        "genmd4-reconstruction-ignores-the-powers",
        "variants/genmd4.py",
        "torch.log_softmax(powers.double() * math.log(first), dim=0)",
        "torch.log_softmax(powers.double() * 0, dim=0)",
        "tokens still masked at the first time are guessed uniformly: a bound, but not the one that is meant",
        ("test_genmd4.py::test_end_terms_are_what_the_ends_cost",),
    ),
    Mutant(
        "genmd4-tilt-forgotten",
        "variants/genmd4.py",
        "tilt = left.log().clamp(min=LEAST)",
        "tilt = torch.zeros_like(left)",
        "symbols are drawn from mu, as if all were unmasked at the same rate",
        ("test_genmd4.py::test_sampling_follows_the_reverse_process_and_its_likelihood[3]",),
    ),
    Mutant(
        "genmd4-survival-forgotten",
        "variants/genmd4.py",
        "stayed = view.memory[0] if view.memory else",
        "stayed = view.memory[0] if False else",
        "a position's uniform is compared with one step's chance to stay, not with that of all steps so far",
        ("test_genmd4.py::test_equal_powers_are_ancestral_sampling_position_for_position[1.0]",),
    ),
    Mutant(
        "causal-shift-off-by-one",
        "networks/transformer.py",
        "F.pad(tokens[:, :-1], (1, 0), value=self.mask_id)",
        "tokens",
        "a causal network reads the token that it predicts",
        ("test_conditions.py::test_logits_depend_on_earlier_tokens_only[learned]",),
    ),
    Mutant(
        "causal-rows-see-the-next-key",
        "networks/transformer.py",
        "device=rows.device) <= rows[:, None, :, None]",
        "device=rows.device) <= rows[:, None, :, None] + 1",
        "partial passes of a causal network see one key too many",
        ("test_conditions.py::test_one_call_is_the_chain_rule[learned]",),
    ),
    Mutant(
        "gates-start-closed",
        "networks/blocks.py",
        "x * (1 + change[place])",
        "x * change[place]",
        "a timed network starts as the identity, not as the plain network",
        ("test_conditions.py::test_conditions_start_without_effect[learned]",),
    ),
    Mutant(
        "d3pm-times-stratified",
        "masking/corruption.py",
        "levels = torch.rand(len(maskable), dtype=torch.float64, generator=generator, device=generator.device)",
        "levels = low_discrepancy(len(maskable), generator)",
        "the baseline gets MD4's better times",
        ("test_baselines.py::test_d3pm_draws_each_time_on_its_own",),
    ),
    Mutant(
        "auxiliary-forgotten",
        "recipes/sequences.py",
        "data.weight + auxiliary)",
        "data.weight)",
        "D3PM's auxiliary cross-entropy is not added",
        ("test_baselines.py::test_the_auxiliary_loss_is_the_cross_entropy_without_weight",),
    ),
    # Puzzles.
    Mutant(
        "any-clue-kept",
        "data/sudoku/boards.py",
        "((asked == BLANK) | (asked == given)).all(1)",
        "((asked == BLANK) | (asked == given)).any(1)",
        "a grid passes when it keeps any clue instead of all",
        ("test_sudoku_data.py::TestChecking::test_every_clue_must_be_kept",),
    ),
    # Upscaling and the U-Net.
    Mutant(
        "upscale-weight-of-one-stage",
        "variants/upscale/training.py",
        "count * within.weight",
        "within.weight",
        "the loss stands for one stage instead of all",
        ("test_upscale.py::test_the_training_loss_estimates_the_bound",),
    ),
    Mutant(
        "upscale-loss-at-visible-digits",
        "variants/upscale/training.py",
        "torch.where(now.masked, losses, 0.0)",
        "losses",
        "visible digits of the stage cost something",
        ("test_upscale.py::test_the_training_loss_estimates_the_bound",),
    ),
    Mutant(
        "upscale-floor",
        "variants/upscale/parametrisations.py",
        "value=-torch.inf",
        "value=-20.0",
        "levels beyond the last one keep a small probability",
        ("test_upscale.py::test_children_beyond_the_last_level_are_impossible_and_the_others_are_not",),
    ),
    Mutant(
        "upscale-not-renormalised",
        "variants/upscale/parametrisations.py",
        "chosen.log_softmax(-1)",
        "chosen - nodes",
        "children are not conditioned on their parent",
        ("test_upscale.py::test_the_stages_of_one_theta_telescope",),
    ),
    Mutant(
        "upscale-direct-without-missing-children",
        "variants/upscale/parametrisations.py",
        "own.masked_fill(child >= levels, -torch.inf)",
        "own",
        "stage heads may draw levels that do not exist",
        ("test_upscale.py::test_children_beyond_the_last_level_are_impossible_and_the_others_are_not",),
    ),
    Mutant(
        "upscale-parent-knows-its-child",
        "variants/upscale/digits.py",
        "< place[:, None]",
        "<= place[:, None]",
        "x^(s-1) holds the stage's own digit",
        ("test_upscale.py::test_the_situation_is_levels_mask_parent_and_stage",),
    ),
    Mutant(
        "upscale-mask-not-told",
        "variants/upscale/networks.py",
        "now.levels, now.masked, now.stage, places",
        "now.levels, now.masked & False, now.stage, places",
        "the network cannot tell level 0 from a hidden one",
        ("test_upscale.py::test_one_stage_is_plain_order_agnostic_diffusion",),
    ),
    Mutant(
        "upscale-rows-of-other-stages",
        "variants/upscale/networks.py",
        "torch.where(current[..., None], law, uniform)",
        "law",
        "finer stages are given the current stage's law",
        ("test_upscale.py::test_rows_are_the_same_rows_of_all_and_others_are_uniform",),
    ),
    Mutant(
        "norm-gradient-without-the-mean",
        "networks/unet.py",
        "spread * tilt * mean - level",
        "-level",
        "the gradient through the variance forgets that x is centred",
        ("test_unet.py::test_the_norm_is_group_norm_and_silu_with_their_gradients",),
    ),
    Mutant(
        "unet-rows-of-the-wrong-channel",
        "networks/unet.py",
        "(rows % channels)",
        "(rows // channels % channels)",
        "chosen rows get the logits of another channel",
        ("test_unet.py::test_rows_are_the_same_rows_of_all_logits",),
    ),
    Mutant(
        "unet-one-table-for-all-channels",
        "networks/unet.py",
        "+ self._offsets(levels)",
        "+ 0",
        "levels of different channels are embedded alike",
        ("test_unet.py::test_levels_are_known_by_name_in_each_channel",),
    ),
    # The codec.
    Mutant(
        "escapes-not-obeyed",
        "codec/tables.py",
        "done.floors.reshape(-1)[at] + ups[low:high]",
        "flat[at]",
        "the decoder rounds by itself near a boundary, so another machine's last digits break the stream",
        (CODEC + "test_noise_within_the_band_on_both_sides_changes_nothing[random]",),
    ),
    Mutant(
        "escapes-in-half-the-band",
        "codec/tables.py",
        "2 * self.law.band",
        "0.5 * self.law.band",
        "encoder and decoder are each off by up to the band, so a value that is not escaped may differ",
        (CODEC + "test_noise_within_the_band_on_both_sides_changes_nothing[random]",),
    ),
    Mutant(
        "selectors-see-what-is-not-rounded",
        "engine/asking.py",
        "base, law = self._laws(lambda: self._ask(view, rows), view, rows, marked >= 0)",
        "base = law = self._ask(view, rows)",
        "sighted orders depend on the last digits of the network",
        (CODEC + "test_noise_within_the_band_on_both_sides_changes_nothing[margin]",),
    ),
    Mutant(
        "impossible-symbols-are-written",
        "codec/coder.py",
        "self.impossible.update(of[counts[np.arange(len(symbols)), symbols] == 0].tolist())",
        "self.impossible.update(())",
        "the coder writes a symbol of probability zero without complaint; only the likelihood knows",
        (CODEC + "test_impossible_symbols_are_stored",),
    ),
    Mutant(
        "carry-forgotten",
        "codec/coder.py",
        "low -= (low > point) << _STATE",
        "low -= 0",
        "the end of a stream is cut beside the interval where a carry ran into the words before",
        (CODEC + "test_streams_whose_interval_holds_a_word_boundary_end_well",),
    ),
    Mutant(
        "items-without-a-number",
        "codec/container.py",
        'zlib.crc32(payload, zlib.crc32(struct.pack("<Q", number)))',
        "zlib.crc32(payload)",
        "two items that change places are not noticed",
        ("test_archive.py::test_swapped_items_are_noticed",),
    ),
    Mutant(
        "escapes-count-from-the-item",
        "codec/tables.py",
        "found: Ints = self.passed[of] + (row - first[of]) * size",
        "found: Ints = self.passed[of] + row * size",
        "a stream depends on what else is in its batch",
        (CODEC + "test_noise_within_the_band_on_both_sides_changes_nothing[random]",),
    ),
    Mutant(
        "ends-are-coded",
        "codec/layout.py",
        "tokens[~masked] = subject.denoiser.vocab_size - 1",
        "tokens[~masked] = subject.denoiser.mask_id",
        "what comes after an item of given length is not shown to the network",
        (CODEC + "test_given_lengths_are_not_coded_and_rows_may_be_cut",),
    ),
    Mutant(
        "remainder-to-the-last",
        "codec/tables.py",
        "whole[each, whole.argmax(1)] +=",
        "whole[each, -1] +=",
        "an impossible last symbol gets the remainder of the counts",
        (CODEC + "test_counts_are_positive_add_up_and_follow_the_law",),
    ),
    # Strangers' files.
    Mutant(
        "symbols-bounded-item-by-item",
        "codec/container.py",
        "before + size > total",
        "size > total",
        "many small items that cost nothing make more work than the file justifies",
        (HOSTILE + "test_certain_symbols_are_bounded_by_the_file_and_max_symbols_accepts_more",),
    ),
    Mutant(
        "plans-longer-than-a-row",
        "codec/reading.py",
        "max(header.method.plan, default=0) > subject.length",
        "max(header.method.plan, default=0) > 2**24",
        "a header holds plans for rows that the model does not have",
        (HOSTILE + "test_hostile_files_end_in_one_short_line[archive: a plan beyond the model]",),
    ),
    Mutant(
        "lost-items-without-end",
        "codec/container.py",
        "following <= listed[0].number < limit",
        "following <= listed[0].number",
        "a damaged file's reader counts up to whatever number a block claims",
        (HOSTILE + "test_lost_items_are_counted_up_to_what_the_file_could_hold",),
    ),
    Mutant(
        "shards-anywhere",
        "data/tokens.py",
        "place.resolve().is_relative_to(folder.resolve())",
        "place.resolve() != folder.resolve()",
        "a foreign manifest names any file of the machine as its shard",
        (HOSTILE + "test_shards_stay_in_their_folder",),
    ),
    # Rows of different lengths, and what a call costs.
    Mutant(
        "one-profile-for-every-length",
        "planning/plans.py",
        "own = profile if count == profile.length else resampled(profile, count)",
        "own = profile if count >= profile.length else type(profile)(profile.entropies[:count])",
        "a shorter row is planned with the beginning of the profile, not with its shares",
        ("test_plans.py::test_plans_for_any_count_are_optimal_for_each",),
    ),
    Mutant(
        "one-step-more-by-rounding",
        "planning/plans.py",
        "math.ceil(share * count - 1e-9)",
        "math.ceil(share * count)",
        "49 calls of 58 become 50, as 49/58 times 58 is a little more than 49",
        ("test_plans.py::test_plans_for_any_count_are_optimal_for_each",),
    ),
    Mutant(
        "unseen-shares-cost-nothing",
        "planning/profiles.py",
        "np.interp(places, seen, column[seen]) for column",
        "column for column",
        "shares of visible positions that were not observed count as known for certain",
        ("test_lengths.py::test_shares_that_were_not_observed_lie_between_their_neighbours",),
    ),
    Mutant(
        "sub-steps-are-free",
        "command_line/commands/compression.py",
        "return steps + substeps - 1",
        "return steps",
        "passes over the rows of a step again are not counted in the calls asked for",
        ("test_archive.py::test_the_order_suits_model_and_calls",),
    ),
    Mutant(
        "line-ends-in-bits-per-byte",
        "command_line/commands/sequences.py",
        "vocabulary.bytes_of(ids) for ids in own",
        "vocabulary.bytes_of(ids) + 1 for ids in own",
        "bits per byte are over the bytes of the file and not of what was scored",
        ("contract/test_bits.py::test_lines_of_molecules_without_their_ends",),
    ),
    Mutant(
        "two-bytes-count-as-one",
        "command_line/commands/sequences.py",
        "found.bytes + (found.tokens == wide).sum(1)",
        "found.bytes",
        "a line end of two bytes that is one symbol counts as one byte",
        ("contract/test_bits.py::test_a_line_end_of_two_bytes_is_two_bytes_where_it_is_one_symbol",),
    ),
    Mutant(
        "kernels-by-place-in-batch",
        "command_line/commands/orders.py",
        "generator=generator, item_ids=ids, entropies=entropies",
        "generator=generator, entropies=entropies",
        "the 65th puzzle gets the noise of the first",
        ("contract/test_batches.py::test_drawn_symbols_are_those_of_one_batch[low-confidence]",),
    ),
    Mutant(
        "ends-are-scored",
        "models/model.py",
        "visible=self.visible(tokens),\n            substeps",
        "substeps",
        "a model scores the ends that it never says: -inf",
        ("contract/test_model_contract.py::test_a_law_whose_ends_are_given_costs_its_symbols_only",),
    ),
    Mutant(
        "the-rest-of-a-text-vanishes",
        "recipes/sequences.py",
        "(whole < len(ids) and not cut)",
        "False",
        "what does not fill a stretch is lost without a word",
        ("contract/test_model_contract.py::test_what_does_not_fit_is_refused_by_its_number",),
    ),
    Mutant(
        "another-models-half-profile",
        "planning/measuring.py",
        '"model or settings": passes.about',
        '"model or settings": ""',
        "a profile goes on with the sums of another model",
        ("contract/test_files.py::test_half_a_profile_of_something_else_is_refused[model]",),
    ),
    Mutant(
        "another-columns-folder",
        "data/writing/resuming.py",
        "settings += [form.reading] if form.reading else []",
        "pass",
        "a folder of one column is given out as that of another",
        ("contract/test_files.py::test_a_finished_folder_is_not_taken_for_another_reading",),
    ),
    Mutant(
        "crlf-becomes-lf",
        "command_line/commands/compression.py",
        "repeat(str(kind).encode(), count)",
        'repeat(b"\\n", count)',
        "lines come back with other ends than they had",
        ("contract/test_files.py::test_lines_come_back_with_their_own_ends",),
    ),
    # What a step does not do again.
    Mutant(
        "trusted-rows-are-not-counted",
        "engine/choosing.py",
        "if any(before - left[i] != choice.rows.shape[1]",
        "if any(before - left[i] > choice.rows.shape[1]",
        "a selector that takes visible positions by way of `take` is believed",
        ("test_engine.py::test_rows_taken_from_another_view_are_seen",),
    ),
    Mutant(
        "noise-one-by-one-with-another-key",
        "base/noise.py",
        "k0, k1 = (k0 + _WEYL[0])",
        "k0, k1 = (k0 + _WEYL[1])",
        "few numbers are other ones than many",
        ("test_noise.py::test_three_ways_to_the_same_integers",),
    ),
    Mutant(
        "signed-products-on-a-device",
        "base/noise.py",
        "(a >> 32 & 0xFFFFFFFF) ^ c3",
        "(a >> 32) ^ c3",
        "an accelerator's noise is another one",
        ("test_noise.py::test_three_ways_to_the_same_integers",),
    ),
    # Heads at the asked rows.
    Mutant(
        "the-probe-believes",
        "denoisers/heads.py",
        "if not (apart <= allowed).all():",
        "if False:",
        "a head that looks at other positions gives other numbers at few rows",
        ("contract/test_heads.py::test_what_is_not_position_wise_runs_in_full[centred after-one]",),
    ),
    Mutant(
        "the-probe-is-coarse",
        "denoisers/heads.py",
        "TOLERANCE = 1e-5",
        "TOLERANCE = 1e-2",
        "a thousandth of the mean over positions goes unnoticed",
        ("contract/test_heads.py::test_what_is_not_position_wise_runs_in_full[barely centred-one]",),
    ),
    Mutant(
        "the-probe-asks-everything",
        "denoisers/heads.py",
        "rows = mixed[:, : max(1, length // 3)]",
        "rows = torch.arange(length).expand(size)",
        "all rows in their order show nothing",
        ("contract/test_heads.py::test_what_is_not_position_wise_runs_in_full[by place-repeated]",),
    ),
    Mutant(
        "one-proof-for-ever",
        "denoisers/heads.py",
        "if self.shown.get(kind, (None,))[0] != seen:",
        "if kind not in self.shown:",
        "weights change after the probe",
        ("contract/test_heads.py::test_a_proof_holds_for_the_weights_that_it_saw",),
    ),
    Mutant(
        "zeros-are-a-proof",
        "denoisers/heads.py",
        'return "" if spread > 10 * allowed else',
        'return "" if spread >= 0 else',
        "a head of zeros, or one that says the same everywhere, proves anything",
        ("contract/test_heads.py::test_a_head_of_zeros_shows_nothing_until_it_is_trained",),
    ),
    Mutant(
        "calls-are-not-counted",
        "denoisers/heads.py",
        "if ask.calls != 1 or not ask.taken:",
        "if not ask.taken:",
        "a run inside the run moves the rows",
        ("contract/test_heads.py::test_a_network_that_asks_itself_within_a_call",),
    ),
    Mutant(
        "hooks-act-in-every-run",
        "denoisers/heads.py",
        "if torch.compiler.is_compiling() or _ASKED.get() is not self:",
        "if torch.compiler.is_compiling():",
        "the hook of one call gathers in a run inside it, or in another thread's",
        ("contract/test_heads.py::test_another_thread_keeps_its_rows",),
    ),
    Mutant(
        "hooks-stay",
        "denoisers/heads.py",
        "            handle.remove()",
        "            pass",
        "every call leaves a hook",
        (
            "contract/test_heads.py::test_what_is_not_position_wise_runs_in_full[centred after-one]",
            "contract/test_heads.py::test_hooks_are_removed_after_an_error[KeyboardInterrupt]",
        ),
    ),
    Mutant(
        "the-probe-draws",
        "denoisers/heads.py",
        '    return torch.random.fork_rng(devices=[index] if device.type == "cuda" else [])',
        "    return torch.random.fork_rng(enabled=False)",
        "a network that draws at inference has drawn before its first call",
        ("contract/test_heads.py::test_the_probe_moves_no_random_state",),
    ),
    Mutant(
        "the-probe-has-no-time",
        "denoisers/heads.py",
        "kind, seen = (min(len(tokens), 2), time is None), self._seen(tokens)",
        "kind, seen = (min(len(tokens), 2), True), self._seen(tokens)",
        "a network is another one when it hears the time",
        ("contract/test_heads.py::test_time_reaches_the_probe_too",),
    ),
    # What enters: networks, own denoisers, wrappers.
    Mutant(
        "time-lost-behind-a-wrapper",
        "denoisers/signature.py",
        "    if inside is not None:\n        return takes(inside, name)",
        "    if inside is not None:\n        return False",
        "a compiled network never hears the time, and the score is another one",
        ("contract/test_networks.py::test_time_reaches_the_network_through_a_wrapper[compiled]",),
    ),
    Mutant(
        "bound-time-overruled",
        "denoisers/signature.py",
        "return name not in network.keywords and takes(network.func, name)",
        "return takes(network.func, name)",
        "a time that functools.partial has fixed is replaced by the order's",
        ("contract/test_networks.py::test_partial_that_binds_the_time_keeps_it",),
    ),
    Mutant(
        "longer-logits-are-taken",
        "denoisers/contract.py",
        "self._check(logits, tokens, tokens)\n",
        "pass\n",
        "two logits too many in front score every symbol one place off",
        ("contract/test_networks.py::test_every_combination_gives_the_value_or_one_line[plain-bare]",),
    ),
    Mutant(
        "evaluation-mode-for-ever",
        "denoisers/modes.py",
        "module.training = True",
        "module.training = False",
        "a training loop with an evaluation in it goes on without dropout",
        ("contract/test_networks.py::test_a_training_loop_with_an_evaluation_in_it",),
    ),
    Mutant(
        "training-mode-stays",
        "denoisers/modes.py",
        "module.training = False",
        "pass",
        "sample and likelihood differ by what drops out",
        ("contract/test_networks.py::test_a_training_loop_with_an_evaluation_in_it",),
    ),
    Mutant(
        "sums-are-not-looked-at",
        "denoisers/checks.py",
        "wrong = ~(totals.abs() <= TOLERANCE)",
        "wrong = totals.isnan()",
        "a denoiser of unnormalised values is scored at +12 nats",
        ("contract/test_denoisers.py::test_an_own_denoiser_that_gives_no_law_is_one_line[shifted-scored-0]",),
    ),
    Mutant(
        "only-the-first-step-is-looked-at",
        "engine/asking.py",
        "if not vouched(self.root):",
        "if not vouched(self.root) and not self.state.step:",
        "a denoiser that goes wrong at step 2",
        ("contract/test_denoisers.py::test_an_own_denoiser_that_gives_no_law_is_one_line[shifted-scored-1]",),
    ),
    Mutant(
        "the-guide-decides",
        "denoisers/wrappers.py",
        "undefined = (ours == -torch.inf) | (theirs == -torch.inf)",
        "undefined = ours == -torch.inf",
        "a guide that forbids a symbol puts all probability on it",
        ("contract/test_denoisers.py::test_a_guide_that_forbids_has_no_say_there",),
    ),
    Mutant(
        "the-impossible-becomes-possible",
        "denoisers/wrappers.py",
        ".masked_fill_(law == -torch.inf, -torch.inf)",
        "",
        "a forbidden symbol gets a little probability",
        (
            "contract/test_denoisers.py::test_what_the_base_forbids_stays_forbidden_and_nothing_is_nan[support-dtype0]",
        ),
    ),
    Mutant(
        "the-mask-is-written",
        "engine/accounting.py",
        "wrong = data != took if",
        "wrong = took < 0 if",
        "a source returns the mask and the loop goes on for ever, or writes it",
        ("contract/test_denoisers.py::test_a_source_that_gives_no_symbols_is_one_line",),
    ),
    # Numbers, and laws at any length.
    Mutant(
        "interpolation-unchecked",
        "laws/between.py",
        ".max() > TOLERANCE:",
        ".max() > 1e9:",
        "a profile with a corner is drawn as a smooth curve",
        ("test_laws.py::test_a_function_with_a_kink_is_cut_until_it_fits",),
    ),
    Mutant(
        "urn-without-the-ball-put-back",
        "laws/exchangeable.py",
        "own = _log_rising(a + 1, count)",
        "own = _log_rising(a, count)",
        "the counts of a colour are taken before, not after it was drawn once",
        ("contract/test_laws_limits.py::test_polya_equals_the_plain_sum[alpha1-60]",),
    ),
    Mutant(
        "hidden-counts-cut-too-close",
        "laws/exchangeable.py",
        "reach = 6 * math.sqrt",
        "reach = 1 * math.sqrt",
        "likely numbers of hidden ones are left out of a balanced profile",
        ("contract/test_laws_limits.py::test_balanced_equals_the_plain_sum[0.5-2500]",),
    ),
    Mutant(
        "magnet-counts-its-middle-twice",
        "laws/magnet.py",
        "2 * terms.sum() - (terms[-1] if mirrored else 0.0)",
        "2 * terms.sum()",
        "the middle count of a magnet stands for its mirror image as well",
        ("contract/test_laws_limits.py::test_curie_weiss_equals_the_plain_sum[0.6-5]",),
    ),
    Mutant(
        "magnet-loses-counts",
        "laws/magnet.py",
        "np.flatnonzero(law > 1e-30)",
        "np.flatnonzero(law > 1e-6)",
        "likely counts of a magnet are dropped on the way",
        ("contract/test_laws_limits.py::test_curie_weiss_equals_the_plain_sum[0.6-1500]",),
    ),
    Mutant(
        "energies-that-swallow-the-count",
        "laws/magnet.py",
        "-2 * self.coupling * (ones / self.length * (self.length - ones))",
        "self.coupling * (2 * ones - self.length) ** 2 / (2 * self.length)",
        "a strong magnet's log-probabilities lose all digits to a constant",
        ("contract/test_laws_limits.py::test_a_strong_magnet_has_two_states[1000000000000.0]",),
    ),
    Mutant(
        "gammas-that-cancel",
        "laws/exchangeable.py",
        "np.where(start < 32, exact, series)",
        "exact",
        "log-probabilities of an urn with many balls lose their digits",
        ("contract/test_laws_limits.py::test_an_urn_with_many_balls_keeps_its_digits[1000000000000.0]",),
    ),
    Mutant(
        "periodic-chains-count-as-mixed",
        "laws/markov.py",
        "for other in (powers[-2], powers[len(powers) // 2])",
        "for other in (powers[len(powers) // 2],)",
        "an even power of a periodic chain equals its half, and is taken for the limit",
        ("contract/test_laws_limits.py::test_a_slow_chain_and_a_periodic_one",),
    ),
    Mutant(
        "far-neighbours-left-out",
        "laws/markov.py",
        "math.ceil(75 *",
        "math.ceil(3 *",
        "gaps between visible neighbours of a chain are cut while they are likely",
        ("contract/test_laws_limits.py::test_markov",),
    ),
    Mutant(
        "steps-that-end-at-zero",
        "laws/markov.py",
        "total = ahead @ steps[-1]",
        "total = ahead @ (0 * steps[-1])",
        "the entropy far from a visible neighbour is left out of a convolution",
        ("contract/test_laws_limits.py::test_chains_equal_the_sum_over_all_pairs[mixing-17]",),
    ),
    Mutant(
        "truth-values-are-numbers",
        "base/numbers.py",
        "truth = isinstance(value, bool) or kind in",
        "truth = kind in",
        "True is taken for 1",
        ("contract/test_numbers.py::test_what_is_no_whole_number_is_refused_by_name[top_k]",),
    ),
    Mutant(
        "seeds-of-any-size",
        "base/numbers.py",
        "if number is None or not 0 <= number <= LARGEST_SEED:",
        "if number is None or not 0 <= number:",
        "seeds beyond 64 bits give the order of another seed",
        ("contract/test_numbers.py::test_seeds_are_whole_numbers_of_64_bits[at_random]",),
    ),
    Mutant(
        "not-a-number-is-one",
        "base/numbers.py",
        "if number is None or math.isnan(number) or not _inside",
        "if number is None or not _inside",
        "NaN passes for a temperature or a level",
        ("contract/test_numbers.py::test_what_is_no_real_number_is_refused_by_name[threshold]",),
    ),
    Mutant(
        "steps-unchecked",
        "base/numbers.py",
        'return real(function(step), f"{name} at step {step}", low, high)',
        "return function(step)",
        "a setting that depends on the step may be NaN",
        ("contract/test_numbers.py::test_settings_of_a_step_are_checked_at_every_step",),
    ),
    Mutant(
        "times-beyond-one",
        "masking/schedules.py",
        "& (found[0] <= 1) & (found[-1] >= 0)",
        "",
        "times outside 0..1 give probabilities outside 0..1",
        ("contract/test_numbers.py::test_times_fall_from_one_to_zero",),
    ),
    # Names and where they live.
    Mutant(
        "old-names-everywhere",
        "_moved.py",
        'package == "unmask" and old in NEW_NAMES',
        'name.removeprefix("unmask.") in NEW_NAMES',
        "a module of other people that is called rules or remask is ours",
        ("contract/test_names.py::test_other_peoples_modules_of_the_same_names_are_left_alone",),
    ),
    Mutant(
        "a-module-under-its-old-spec",
        "_moved.py",
        "module.__spec__ = self.own",
        "pass",
        "after an import under the old name a module takes itself for the old one",
        (
            "contract/test_names.py::test_an_old_name_warns_once_and_is_the_new_module[upscale-variants.upscale-import]",
        ),
    ),
)


def main() -> int:
    """Runs the list; 0 if every mutant was killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", help="print the mutants and stop")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="run these mutants only")
    options = parser.parse_args()
    unknown = set(options.only or ()) - {mutant.name for mutant in MUTANTS}
    if unknown:
        parser.error(f"no mutant is called {', '.join(sorted(unknown))}; see --list")
    chosen = [mutant for mutant in MUTANTS if not options.only or mutant.name in options.only]
    if options.list:
        print("\n".join(f"{mutant.name:36} {mutant.file:20} {mutant.why}" for mutant in chosen))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        return _run(chosen, Path(folder))


def _run(chosen: list[Mutant], folder: Path) -> int:
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    healthy, seconds = _verdict(sorted({test for mutant in chosen for test in mutant.tests}), folder)
    print(
        f"{'without a bug':36} {'passed' if healthy == 'SURVIVED' else healthy:10} {seconds:5.1f} s",
        flush=True,
    )
    if healthy != "SURVIVED":
        print("the tests fail without any mutant; expected them to pass: mend them first")
        return 1
    verdicts = [_try(mutant, folder) for mutant in chosen]
    killed = verdicts.count("killed")
    print(f"{killed} of {len(verdicts)} killed")
    return int(killed < len(verdicts))


def _try(mutant: Mutant, folder: Path) -> str:
    """The verdict on one mutant, printed."""
    path = folder / "src" / "unmask" / mutant.file
    text = path.read_text()
    found = text.count(mutant.old)
    if found != 1:
        verdict, seconds = f"OLD TEXT FOUND {found} TIMES", 0.0
    else:
        path.write_text(text.replace(mutant.old, mutant.new))
        verdict, seconds = _verdict(mutant.tests, folder)
        path.write_text(text)
    print(f"{mutant.name:36} {verdict:10} {seconds:5.1f} s   {mutant.why}", flush=True)
    return verdict


def _verdict(tests: tuple[str, ...] | list[str], folder: Path) -> tuple[str, float]:
    """ "killed", "SURVIVED" or what else went wrong, and the seconds that it took."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "--no-header",
    ]
    places = {"PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    began = time.monotonic()
    try:
        done = subprocess.run(
            [*command, *(f"tests/{test}" for test in tests)],
            cwd=ROOT,
            env=os.environ | places,
            capture_output=True,
            text=True,
            timeout=TIMEOUT if len(tests) < 9 else None,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "killed", time.monotonic() - began
    verdict = {0: "SURVIVED", 1: "killed"}.get(
        done.returncode, f"BROKEN\n{done.stdout[-2000:]}{done.stderr[-500:]}"
    )
    return verdict, time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
