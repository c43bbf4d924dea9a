"""Reading compiled programs, on programs written by hand. None of this needs libtpu."""

import pytest

from maskjax.planning.costs import read_costs, repaired_seconds, scopes
from maskjax.planning.hlo import Program, arrays
from maskjax.planning.loops import executions, trip_count
from maskjax.planning.memory import activation_bytes

LOOP = """\
HloModule jit_step, is_scheduled=true

%step.1 (i.1: s32[]) -> s32[] {
  %i.1 = s32[] parameter(0)
  %two.1 = s32[] constant(2)
  ROOT %sum.1 = s32[]{:T(128)} add(%i.1, %two.1)
}

%body.1 (state.1: (s32[], f32[8,128], s32[])) -> (s32[], f32[8,128], s32[]) {
  %state.1 = (s32[], f32[8,128]{1,0:T(8,128)}, s32[]) parameter(0)
  %turn.1 = s32[] get-tuple-element(%state.1), index=0
  %x.1 = f32[8,128]{1,0:T(8,128)} get-tuple-element(%state.1), index=1
  %bound.1 = s32[] get-tuple-element(%state.1), index=2
  %next.1 = s32[] fusion(%turn.1), kind=kLoop, calls=%step.1
  %y.1 = f32[8,128]{1,0:T(8,128)} multiply(%x.1, %x.1), \
backend_config={"window_config":{"estimated_cycles":"100"}}
  ROOT %after.1 = (s32[], f32[8,128]{1,0:T(8,128)}, /*index=2*/s32[]) \
tuple(%next.1, /*index=1*/%y.1, %bound.1)
}

%less.1 (a.1: s32[], b.1: s32[]) -> pred[] {
  %a.1 = s32[] parameter(0)
  %b.1 = s32[] parameter(1)
  ROOT %compare.1 = pred[] compare(%a.1, %b.1), direction=LT
}

%condition.1 (state.2: (s32[], f32[8,128], s32[])) -> pred[] {
  %state.2 = (s32[], f32[8,128]{1,0:T(8,128)}, s32[]) parameter(0)
  %turn.2 = s32[] get-tuple-element(%state.2), index=0
  %bound.2 = s32[] get-tuple-element(%state.2), index=2
  ROOT %go.1 = pred[] fusion(%turn.2, %bound.2), kind=kLoop, calls=%less.1
}

ENTRY %main.1 (x.2: f32[8,128]) -> f32[8,128] {
  %x.2 = f32[8,128]{1,0:T(8,128)} parameter(0)
  %start.1 = s32[] constant(3)
  %end.1 = s32[] constant(12)
  %before.1 = (s32[], f32[8,128]{1,0:T(8,128)}, s32[]) tuple(%start.1, %x.2, %end.1)
  %while.1 = (s32[], f32[8,128]{1,0:T(8,128)}, s32[]) while(%before.1), \
condition=%condition.1, body=%body.1
  ROOT %out.1 = f32[8,128]{1,0:T(8,128)} get-tuple-element(%while.1), index=1
}
"""


def loop_turns(text):
  program = Program.parse(text)
  (loop,) = (
    op for op in program.computations[program.entry].values() if op.opcode == "while"
  )
  return trip_count(program, program.entry, loop)


# Text


def test_text_becomes_operations():
  program = Program.parse(LOOP)
  assert program.entry == "main.1"
  assert list(program.computations) == [
    "step.1", "body.1", "less.1", "condition.1", "main.1"
  ]  # fmt: skip
  loop = program.computations["main.1"]["while.1"]
  assert loop.opcode == "while"
  assert loop.operands == ("before.1",)
  assert loop.called == ("condition.1", "body.1")
  assert [array.dims for array in arrays(loop.shape)] == [(), (8, 128), ()]
  root = program.root("body.1")
  assert root.operands == ("next.1", "y.1", "bound.1")
  assert program.root("main.1").name == "out.1"


@pytest.mark.parametrize(
  ("shape", "bytes_", "padded", "in_hbm"),
  [
    ("f32[]", 4, 4, True),
    ("pred[5]{0}", 5, 5, True),
    ("s4[3]{0}", 2, 2, True),
    ("bf16[50,64]{1,0:T(8,128)(2,1)}", 6400, 56 * 128 * 2, True),
    # The first dimension is the minor one.
    ("bf16[50,64]{0,1:T(8,128)(2,1)}", 6400, 64 * 128 * 2, True),
    ("f32[64,50,50]{1,2,0:T(8,128)S(1)}", 640000, 64 * 56 * 128 * 4, False),
    ("f32[1000]{0:T(1024)}", 4000, 4096, True),
  ],
)
def test_bytes_of_an_array(shape, bytes_, padded, in_hbm):
  (array,) = arrays(shape)
  assert (array.bytes, array.padded_bytes, array.in_hbm) == (bytes_, padded, in_hbm)


# Loops


def test_a_loop_by_twos_from_3_to_12_has_five_turns():
  assert loop_turns(LOOP) == 5
  costs = read_costs(Program.parse(LOOP), 1)
  assert costs.cycles == 500
  assert not costs.inexact_loops
  # An array of 4096 bytes, read and written in each turn.
  assert costs.hbm_bytes >= 5 * 2 * 4096


@pytest.mark.parametrize(
  ("old", "new", "turns"),
  [
    ("direction=LT", "direction=LE", 5),
    ("constant(12)", "constant(13)", 5),
    ("constant(12)", "constant(14)", 6),
    ("constant(12)", "constant(3)", 0),
    ("direction=LT", "direction=NE", None),  # 3, 5, ... jumps over 12
    ("add(%i.1, %two.1)", "multiply(%i.1, %two.1)", None),
    ("%start.1 = s32[] constant(3)", "%start.1 = s32[] custom-call()", None),
    ("calls=%less.1", "calls=%less.1, x", 5),
    ("condition=%condition.1, body=%body.1",
     'condition=%condition.1, body=%body.1, '
     'backend_config={"known_trip_count":{"n":"7"}}', 7),
  ],
)  # fmt: skip
def test_turns_are_exact_or_unknown(old, new, turns):
  assert old in LOOP
  assert loop_turns(LOOP.replace(old, new)) == turns


def test_a_loop_that_counts_down():
  text = LOOP.replace("add(%i.1, %two.1)", "subtract(%i.1, %two.1)")
  text = text.replace("direction=LT", "direction=GT")
  text = text.replace("constant(12)", "constant(-4)")
  assert loop_turns(text) == 4  # at 3, 1, -1, -3


def test_unknown_turns_are_reported():
  text = LOOP.replace("add(%i.1, %two.1)", "multiply(%i.1, %two.1)")
  found, inexact = executions(Program.parse(text))
  assert inexact == ["while.1"]
  assert {e.times for e in found} == {1}


# Collectives

COLLECTIVES = """\
HloModule jit_step, is_scheduled=true

%sum.1 (a.1: f32[], b.1: f32[]) -> f32[] {
  %a.1 = f32[] parameter(0)
  %b.1 = f32[] parameter(1)
  ROOT %c.1 = f32[] add(%a.1, %b.1)
}

%gather.1 (p.1: bf16[16,128]) -> bf16[64,128] {
  %p.1 = bf16[16,128]{1,0} parameter(0)
  ROOT %all-gather.1 = bf16[64,128]{1,0} all-gather(%p.1), channel_id=1, \
replica_groups=[1,4]<=[4], dimensions={0}
}

ENTRY %main.1 (w.1: bf16[16,128], g.1: f32[64,128]) -> f32[64,128] {
  %w.1 = bf16[16,128]{1,0} parameter(0)
  %g.1 = f32[64,128]{1,0} parameter(1)
  %start.1 = bf16[64,128]{1,0} fusion(%w.1), kind=kCustom, calls=%gather.1
  %again.1 = bf16[64,128]{1,0} fusion(%w.1), kind=kCustom, calls=%gather.1
  %scatter.1 = f32[16,128]{1,0} reduce-scatter(%g.1), channel_id=2, \
replica_groups={{0,1},{2,3}}, dimensions={0}, to_apply=%sum.1
  %sort.1 = f32[64,128]{1,0} sort(%g.1), dimensions={1}, to_apply=%sum.1
  %reduce.1 = f32[64,128]{1,0} all-reduce-start(%g.1), channel_id=3, \
replica_groups={}, to_apply=%sum.1
  ROOT %done.1 = f32[64,128]{1,0} all-reduce-done(%reduce.1)
}
"""


def test_collectives_inside_fusions_count_once_a_channel():
  costs = read_costs(Program.parse(COLLECTIVES), 4)
  assert costs.collective_bytes == {
    "all-gather": 64 * 128 * 2,
    "all-reduce": 64 * 128 * 4,
    "reduce-scatter": 64 * 128 * 4,
  }
  around = 64 * 128 * 2 * 3 / 4 + 64 * 128 * 4 * 2 * 3 / 4 + 64 * 128 * 4 / 2
  assert costs.link_bytes == around


def test_what_has_no_price_is_counted():
  costs = read_costs(Program.parse(COLLECTIVES), 4)
  assert costs.unpriced == {"fusion": 2, "sort": 1}
  assert costs.cycles == 0


# Slices and scopes

SLICES = """\
HloModule jit_step, is_scheduled=true

%one.1 (all.1: f32[24,8,128], i.1: s32[]) -> f32[1,8,128] {
  %all.1 = f32[24,8,128]{2,1,0:T(8,128)} parameter(0)
  %i.1 = s32[] parameter(1)
  %zero.1 = s32[] constant(0)
  ROOT %slice.1 = f32[1,8,128]{2,1,0:T(8,128)} \
dynamic-slice(%all.1, %i.1, %zero.1, %zero.1), dynamic_slice_sizes={1,8,128}
}

%put.1 (all.2: f32[24,8,128], new.1: f32[1,8,128], i.2: s32[]) -> f32[24,8,128] {
  %all.2 = f32[24,8,128]{2,1,0:T(8,128)} parameter(0)
  %new.1 = f32[1,8,128]{2,1,0:T(8,128)} parameter(1)
  %i.2 = s32[] parameter(2)
  %zero.2 = s32[] constant(0)
  ROOT %update.1 = f32[24,8,128]{2,1,0:T(8,128)} \
dynamic-update-slice(%all.2, %new.1, %i.2, %zero.2, %zero.2)
}

ENTRY %main.1 (p.1: f32[24,8,128], i.3: s32[]) -> f32[24,8,128] {
  %p.1 = f32[24,8,128]{2,1,0:T(8,128)} parameter(0)
  %i.3 = s32[]{:S(2)} parameter(1)
  %got.1 = f32[1,8,128]{2,1,0:T(8,128)} fusion(%p.1, %i.3), kind=kLoop, calls=%one.1, \
metadata={op_name="jit(step)/block_3/take"}, \
backend_config={"window_config":{"estimated_cycles":"7"}}
  ROOT %put.2 = f32[24,8,128]{2,1,0:T(8,128)} fusion(%p.1, %got.1, %i.3), kind=kLoop, \
calls=%put.1, metadata={op_name="jit(step)/block_4/take"}, \
backend_config={"window_config":{"estimated_cycles":"5"}}
}
"""


def test_of_slices_only_the_slice_moves():
  costs = read_costs(Program.parse(SLICES), 1)
  # Read one layer and write it; read it again and put it in its place.
  assert costs.hbm_bytes == 4 * 4096


def test_cycles_by_scope():
  assert scopes(Program.parse(SLICES)) == {"jit(step)/block/take": 12}


def test_each_concat_bitcast_gives_a_second_back():
  text = 'x custom_call_target="ConcatBitcast" y custom_call_target="ConcatBitcast"'
  assert repaired_seconds(-1.75, text) == pytest.approx(0.25)


# Activations

PASSES = """\
HloModule jit_step, is_scheduled=true

ENTRY %main.1 (w.1: f32[8,128], x.1: f32[8,128]) -> f32[8,128] {
  %w.1 = f32[8,128]{1,0:T(8,128)} parameter(0)
  %x.1 = f32[8,128]{1,0:T(8,128)} parameter(1)
  %kept.1 = f32[8,128]{1,0:T(8,128)} multiply(%w.1, %x.1), \
metadata={op_name="jit(step)/jvp(Net)/mul"}
  %view.1 = f32[1024]{0:T(1024)} bitcast(%kept.1)
  %forgotten.1 = f32[8,128]{1,0:T(8,128)} add(%kept.1, %x.1), \
metadata={op_name="jit(step)/jvp(Net)/add"}
  %fast.1 = f32[8,128]{1,0:T(8,128)S(1)} add(%forgotten.1, %x.1), \
metadata={op_name="jit(step)/jvp(Net)/add"}
  %back.1 = f32[8,128]{1,0:T(8,128)} multiply(%fast.1, %w.1), \
metadata={op_name="jit(step)/transpose(jvp(Net))/mul"}
  ROOT %back.2 = f32[8,128]{1,0:T(8,128)} add(%back.1, %view.1), \
metadata={op_name="jit(step)/transpose(jvp(Net))/add"}
}
"""


def test_activations_are_what_the_backward_pass_still_reads():
  assert activation_bytes(Program.parse(PASSES)) == 4096


def test_without_a_backward_pass_there_are_none():
  assert activation_bytes(Program.parse(LOOP)) == 0
