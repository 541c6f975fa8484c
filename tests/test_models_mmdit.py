"""What the MMDiT promises about shapes, masks, positions and initial values."""

import pytest
import torch

from darkroom.exported.mmdit import MMDiT, axial_angles, axial_rope, rotate, timestep_sinusoid


def small(**changes) -> MMDiT:
    torch.manual_seed(0)
    config = {
        "in_channels": 4,
        "num_blocks": 2,
        "num_heads": 2,
        "head_dim": 16,
        "patch_size": 2,
        "mlp_ratio": 2.0,
        "text_dim": 12,
        "pooled_dim": 10,
    }
    return MMDiT(**{**config, **changes})


def awake(**changes) -> MMDiT:
    """A model whose zero-initialised layers are random, so that everything reaches the output."""
    model = small(**changes)
    for name, parameter in model.named_parameters():
        if "modulation" in name or name.startswith("image_out"):
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def inputs(batch: int = 3, height: int = 8, width: int = 6, tokens: int = 5):
    torch.manual_seed(1)
    latents, text, pooled = (
        torch.randn(batch, 4, height, width),
        torch.randn(batch, tokens, 12),
        torch.randn(batch, 10),
    )
    return latents, torch.rand(batch), text, torch.ones(batch, tokens, dtype=torch.bool), pooled


def test_the_initial_velocity_is_zero():
    assert small()(*inputs()).abs().max() == 0


def test_any_size_that_the_patch_divides_works_and_others_are_named():
    model = awake()
    for height, width in ((2, 2), (8, 6), (4, 20)):
        assert model(*inputs(height=height, width=width)).shape == (3, 4, height, width)
    with pytest.raises(ValueError, match="7 x 6: sides must be multiples of the patch size 2"):
        model(*inputs(height=7))


@pytest.mark.parametrize("training", [True, False])
def test_padding_of_the_text_does_not_change_the_velocity(training):
    model = awake()
    latents, timestep, text, mask, pooled = inputs()
    mask[0, 3:], mask[1, 2:] = False, False
    garbage = torch.where(mask[..., None], text, torch.tensor(1e3))
    with torch.set_grad_enabled(training):
        velocity = model(latents, timestep, text, mask, pooled)
        torch.testing.assert_close(model(latents, timestep, garbage, mask, pooled), velocity)
        alone = model(latents[1:2], timestep[1:2], text[1:2, :2], mask[1:2, :2], pooled[1:2])
    torch.testing.assert_close(alone, velocity[1:2], atol=1e-5, rtol=1e-4)


def test_no_mask_means_that_nothing_is_padded():
    model = awake()
    latents, timestep, text, mask, pooled = inputs()
    assert torch.equal(
        model(latents, timestep, text, None, pooled), model(latents, timestep, text, mask, pooled)
    )


def test_training_and_drawing_compute_the_same_velocity():
    model = awake()
    latents, timestep, text, mask, pooled = inputs()
    mask[0, 3:] = False
    velocity = model(latents, timestep, text, mask, pooled)
    with torch.no_grad():
        torch.testing.assert_close(
            model(latents, timestep, text, mask, pooled), velocity, atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize("changed", range(5))
def test_every_input_reaches_the_velocity(changed):
    model = awake()
    arguments = list(inputs())
    velocity = model(*arguments)
    if changed == 3:
        arguments[3] = torch.arange(5).expand(3, 5) < 2
    else:
        arguments[changed] = arguments[changed].roll(1, 0)
    assert (model(*arguments) - velocity).abs().flatten(1).amax(dim=1).min() > 1e-4


def test_every_weight_is_trained():
    model = awake()
    model(*inputs()).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_the_last_block_has_no_text_output_path():
    names = [name for name, _ in small().named_parameters()]
    assert any(name.startswith("blocks.0.text.mlp_in") for name in names)
    assert not any(name.startswith(("blocks.1.text.mlp", "blocks.1.text.attention_out")) for name in names)


def test_attention_between_positions_depends_on_their_offset_alone():
    cos, sin = axial_rope(axial_angles(6, 7, 16, 100.0, 1.0, torch.device("cpu")))
    torch.manual_seed(0)
    query, key = torch.randn(16), torch.randn(16)
    queries, keys = (rotate(x.expand(42, 16), cos, sin) for x in (query, key))
    product = (queries @ keys.T).view(6, 7, 6, 7)
    torch.testing.assert_close(product[0, 0, 2, 3], product[3, 3, 5, 6])
    torch.testing.assert_close(product[1, 5, 4, 2], product[2, 6, 5, 3])
    assert (product[0, 0, 2, 3] - product[0, 0, 3, 2]).abs() > 1e-3  # rows and columns differ
    torch.testing.assert_close(queries.norm(dim=-1), query.norm().expand(42))


def test_pictures_of_two_orientations_are_told_apart():
    model = awake()
    latents, timestep, text, mask, pooled = inputs(height=4, width=8)
    velocity = model(latents, timestep, text, mask, pooled)
    turned = model(latents.transpose(2, 3), timestep, text, mask, pooled).transpose(2, 3)
    assert (turned - velocity).abs().max() > 1e-3


def test_timesteps_have_distinct_embeddings_of_the_stated_periods():
    embedding = timestep_sinusoid(torch.tensor([0.0, 0.5, 0.501]), 8)
    assert embedding[0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert (embedding[1] - embedding[2]).norm() > 0.5
    expected = torch.cos(torch.tensor(500.0) / torch.tensor([1.0, 10.0, 100.0, 1000.0]))
    torch.testing.assert_close(embedding[1, :4], expected, atol=1e-4, rtol=0)


def test_gradient_checkpointing_changes_no_gradient():
    gradients = []
    for checkpointing in (False, True):
        model = awake()
        if checkpointing:
            model.enable_gradient_checkpointing()
        model(*inputs()).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second)


def test_two_runs_give_the_same_gradients_bit_for_bit():
    gradients = []
    for _ in range(2):
        model = awake()
        with torch.autocast("cpu", torch.bfloat16):
            velocity = model(*inputs())
        velocity.square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert torch.equal(*gradients)


def test_bfloat16_autocast_stays_close_to_float32():
    model = awake()
    velocity = model(*inputs())
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(*inputs())
    assert rounded.dtype == torch.float32
    assert (rounded - velocity).norm() / velocity.norm() < 0.03


def test_weights_and_latents_in_bfloat16_work_without_autocast():
    model = awake()
    arguments = inputs()
    velocity = model(*arguments)
    rounded = model.bfloat16()(arguments[0].bfloat16(), *arguments[1:])
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - velocity).norm() / velocity.norm() < 0.05


def test_saved_weights_load_again(tmp_path):
    model = awake()
    model.save_pretrained(tmp_path)
    loaded = MMDiT.from_pretrained(tmp_path)
    assert torch.equal(loaded(*inputs()), model(*inputs()))
    assert loaded.config.rope_theta == 10_000


def test_head_dim_must_suit_two_axes():
    with pytest.raises(ValueError, match="head_dim 18"):
        small(head_dim=18)


def test_seed_001_at_full_size_has_1_2_billion_parameters():
    with torch.device("meta"):
        model = MMDiT(
            in_channels=16, num_blocks=19, num_heads=19, head_dim=64, patch_size=2, mlp_ratio=4.0,
            text_dim=(2304, 1024), pooled_dim=768, mlp="swiglu", text_scale=0.01, learned_time_scale=True,
        )  # fmt: skip
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(1.2e9, rel=0.03)


@pytest.mark.parametrize("mlp", ["gelu", "swiglu"])
def test_swiglu_gates_a_third_matrix(mlp):
    model = awake(mlp=mlp)
    x = torch.randn(2, 3, 32)
    stream, zero = model.blocks[0].image, torch.zeros(1, 1, 32)
    normed = torch.nn.functional.layer_norm(x, (32,), eps=1e-6)
    hidden = stream.mlp_in(normed)
    if mlp == "swiglu":
        hidden = torch.nn.functional.silu(stream.mlp_gate(normed)) * hidden
    else:
        assert stream.mlp_gate is None
        hidden = torch.nn.functional.gelu(hidden)
    torch.testing.assert_close(stream.mlp(x, zero, zero), stream.mlp_out(hidden))


@pytest.mark.parametrize("positions", ["rope", "absolute", "none"])
def test_positions_tell_places_apart_unless_there_are_none(positions):
    """Without positions a model cannot tell an upside-down picture from an upright one."""
    model = awake(positions=positions)
    latents, timestep, text, mask, pooled = inputs()
    flipped = model.unpatchify(model.patchify(latents).flip(1), 4, 3)
    out = model.patchify(model(latents, timestep, text, mask, pooled)).flip(1)
    same = torch.allclose(model.patchify(model(flipped, timestep, text, mask, pooled)), out, atol=1e-4)
    assert same == (positions == "none")


def test_interpolated_positions_at_twice_the_side_are_the_old_ones_and_those_between():
    device = torch.device("cpu")
    old = axial_angles(4, 3, 16, 100.0, 1.0, device).unflatten(0, (4, 3))
    new = axial_angles(8, 6, 16, 100.0, 2.0, device).unflatten(0, (8, 6))
    torch.testing.assert_close(new[::2, ::2], old)
    assert new.max() <= old.max() + 0.5


def test_attention_and_mlp_are_computed_again_each_by_its_own_switch():
    latents, timestep, text, mask, pooled = inputs()
    kept, gradients = {}, {}
    for name in ("none", "checkpoint_attention", "checkpoint_mlp"):
        model = awake(mlp="swiglu")
        for block in model.blocks:
            setattr(block, name, True)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, s=sizes: (s.append(t.numel()), t)[1], lambda t: t
        ):
            out = model(latents, timestep, text, mask, pooled)
        out.square().mean().backward()
        kept[name] = sum(sizes)
        gradients[name] = [p.grad for p in model.parameters()]
    assert kept["checkpoint_attention"] < kept["none"] and kept["checkpoint_mlp"] < kept["none"]
    for name in ("checkpoint_attention", "checkpoint_mlp"):
        for a, b in zip(gradients["none"], gradients[name], strict=True):
            torch.testing.assert_close(a, b)


def test_every_encoder_has_its_own_norm_and_scale_and_its_padding_is_not_seen():
    model = awake(text_dim=(12, 7), text_scale=0.01)
    assert model.text_scales.tolist() == pytest.approx([0.01, 0.01])
    latents, timestep, text, mask, pooled = inputs()
    other = torch.randn(3, 4, 7)
    out = model(latents, timestep, [text, other], [mask, None], pooled)
    # A norm of its own: the magnitude of an encoder's states does not matter.
    torch.testing.assert_close(
        model(latents, timestep, [text, 1e3 * other], [None, None], pooled), out, atol=1e-4, rtol=1e-3
    )
    mask = mask.clone()
    mask[:, 3:] = False
    short = model(latents, timestep, [text[:, :3], other], None, pooled)
    torch.testing.assert_close(
        model(latents, timestep, [text, other], [mask, None], pooled), short, atol=1e-5, rtol=1e-4
    )
    with torch.no_grad():
        model.text_scales[1] = 1.0
    assert not torch.allclose(model(latents, timestep, [text, other], None, pooled), out, atol=1e-3)


def test_the_learned_time_scale_starts_at_1000_and_learns():
    model, plain = awake(learned_time_scale=True), awake()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if k != "time_scale"})
    assert model.time_scale.tolist() == [1000.0]
    out = model(*inputs())
    torch.testing.assert_close(out, plain(*inputs()))
    out.square().mean().backward()
    assert model.time_scale.grad.abs() > 0


def test_a_model_without_pooled_text_has_no_weights_for_it():
    model = awake(pooled_dim=0)
    latents, timestep, text, mask, _ = inputs()
    assert model.pooled_in is None
    assert model(latents, timestep, text, mask, torch.zeros(3, 0)).isfinite().all()
