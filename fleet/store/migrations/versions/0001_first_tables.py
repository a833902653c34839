"""The tables of the first day"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")

# The audit log is append-only whoever holds the connection: the database refuses, not the program.
AUDIT_GUARDS = {
    "sqlite": [
        f"CREATE TRIGGER audit_no_{verb} BEFORE {verb} ON audit BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END"
        for verb in ("UPDATE", "DELETE")
    ],
    "postgresql": [
        "CREATE FUNCTION audit_refuse() RETURNS trigger AS "
        "$$ BEGIN RAISE EXCEPTION 'audit is append-only'; END $$ LANGUAGE plpgsql",
        "CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION audit_refuse()",
    ],
}


def upgrade() -> None:
    op.create_table(
        "alert",
        sa.Column("id", ID, nullable=False),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("severity", sa.String(length=10), nullable=False),
        sa.Column("device", sa.String(length=40), nullable=True),
        sa.Column("model", sa.String(length=40), nullable=True),
        sa.Column("rollout", sa.String(length=40), nullable=True),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("detail", JSON, nullable=False),
        sa.Column("opened_ms", sa.BigInteger(), nullable=False),
        sa.Column("closed_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_alert"),
    )
    op.create_index("ix_alert_key_closed", "alert", ["key", "closed_ms"])

    op.create_table(
        "api_token",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("token_sha256", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=10), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_ms", sa.BigInteger(), nullable=True),
        sa.Column("revoked_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_api_token"),
        sa.UniqueConstraint("name", name="uq_api_token_name"),
        sa.UniqueConstraint("token_sha256", name="uq_api_token_token_sha256"),
    )
    op.create_table(
        "audit",
        sa.Column("id", ID, nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(length=80), nullable=False),
        sa.Column("role", sa.String(length=10), nullable=False),
        sa.Column("action", sa.String(length=40), nullable=False),
        sa.Column("object", sa.String(length=200), nullable=False),
        sa.Column("detail", JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.create_index("ix_audit_at_ms", "audit", ["at_ms"])

    op.create_table(
        "device",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("labels", JSON, nullable=False),
        sa.Column("enrolled_ms", sa.BigInteger(), nullable=False),
        sa.Column("certificate_pem", sa.Text(), nullable=False),
        sa.Column("certificate_serial", sa.String(length=64), nullable=False),
        sa.Column("certificate_expires_ms", sa.BigInteger(), nullable=False),
        sa.Column("revoked_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_device"),
    )
    op.create_index("ix_device_certificate_serial", "device", ["certificate_serial"])

    op.create_table(
        "enrolment",
        sa.Column("id", ID, nullable=False),
        sa.Column("secret_sha256", sa.String(length=64), nullable=False),
        sa.Column("device", sa.String(length=40), nullable=True),
        sa.Column("labels", JSON, nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=80), nullable=False),
        sa.Column("expires_ms", sa.BigInteger(), nullable=False),
        sa.Column("used_ms", sa.BigInteger(), nullable=True),
        sa.Column("used_by", sa.String(length=40), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_enrolment"),
        sa.UniqueConstraint("secret_sha256", name="uq_enrolment_secret_sha256"),
    )
    op.create_table(
        "event",
        sa.Column("id", ID, nullable=False),
        sa.Column("source", sa.String(length=8), nullable=False),
        sa.Column("device", sa.String(length=40), nullable=True),
        sa.Column("boot", sa.BigInteger(), nullable=True),
        sa.Column("seq", sa.BigInteger(), nullable=True),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=80), nullable=False),
        sa.Column("code", sa.String(length=80), nullable=False),
        sa.Column("model", sa.String(length=80), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("rollout", sa.String(length=80), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_event"),
        sa.UniqueConstraint("device", "boot", "seq", name="uq_event_device_boot_seq"),
    )
    op.create_index("ix_event_device_received", "event", ["device", "received_ms"])
    op.create_index("ix_event_rollout", "event", ["rollout"])

    op.create_table(
        "meta",
        sa.Column("key", sa.String(length=80), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_meta"),
    )
    op.create_table(
        "release",
        sa.Column("id", ID, nullable=False),
        sa.Column("model", sa.String(length=40), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("role_version", sa.BigInteger(), nullable=False),
        sa.Column("published_ms", sa.BigInteger(), nullable=False),
        sa.Column("published_by", sa.String(length=80), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_release"),
        sa.UniqueConstraint("model", "version", name="uq_release_model_version"),
    )
    op.create_table(
        "artifact",
        sa.Column("id", ID, nullable=False),
        sa.Column("release_id", ID, nullable=False),
        sa.Column("model", sa.String(length=40), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("target", sa.String(length=40), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("manifest", sa.LargeBinary(), nullable=False),
        sa.Column("evidence", sa.LargeBinary(), nullable=True),
        sa.Column("engine", sa.String(length=40), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("reference_sha256", sa.String(length=64), nullable=True),
        sa.ForeignKeyConstraint(["release_id"], ["release.id"], name="fk_artifact_release_id"),
        sa.PrimaryKeyConstraint("id", name="pk_artifact"),
        sa.UniqueConstraint("model", "version", "target", name="uq_artifact_model_version_target"),
        sa.UniqueConstraint("sha256", name="uq_artifact_sha256"),
    )
    op.create_index("ix_artifact_release_id", "artifact", ["release_id"])

    op.create_table(
        "drift",
        sa.Column("device", sa.String(length=40), nullable=False),
        sa.Column("model", sa.String(length=40), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("last_window_id", sa.BigInteger(), nullable=False),
        sa.Column("streams", JSON, nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["device"], ["device.id"], name="fk_drift_device"),
        sa.PrimaryKeyConstraint("device", "model", name="pk_drift"),
    )
    op.create_table(
        "installed",
        sa.Column("device", sa.String(length=40), nullable=False),
        sa.Column("model", sa.String(length=40), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=True),
        sa.Column("target", sa.String(length=40), nullable=True),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("slot", sa.String(length=1), nullable=True),
        sa.Column("wanted_sha256", sa.String(length=64), nullable=True),
        sa.Column("rollout", sa.String(length=40), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("outcome", sa.String(length=20), nullable=False),
        sa.Column("error_code", sa.String(length=80), nullable=False),
        sa.Column("error_detail", sa.Text(), nullable=False),
        sa.Column("changed_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["device"], ["device.id"], name="fk_installed_device"),
        sa.PrimaryKeyConstraint("device", "model", name="pk_installed"),
    )
    op.create_index("ix_installed_version", "installed", ["version"])

    op.create_table(
        "rollout",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("release_id", ID, nullable=False),
        sa.Column("model", sa.String(length=40), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("plan", JSON, nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("stage", sa.Integer(), nullable=False),
        sa.Column("progress", JSON, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=80), nullable=False),
        sa.Column("finished_ms", sa.BigInteger(), nullable=True),
        sa.Column("idempotency_key", sa.String(length=200), nullable=True),
        sa.Column("request_sha256", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["release_id"], ["release.id"], name="fk_rollout_release_id"),
        sa.PrimaryKeyConstraint("id", name="pk_rollout"),
        sa.UniqueConstraint("idempotency_key", name="uq_rollout_idempotency_key"),
    )
    op.create_index("ix_rollout_release_id", "rollout", ["release_id"])
    op.create_index("ix_rollout_state", "rollout", ["state"])

    op.create_table(
        "twin",
        sa.Column("device", sa.String(length=40), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("desired", sa.LargeBinary(), nullable=True),
        sa.Column("desired_expires_s", sa.BigInteger(), nullable=True),
        sa.Column("published_generation", sa.BigInteger(), nullable=False),
        sa.Column("settings", JSON, nullable=False),
        sa.Column("reported", sa.LargeBinary(), nullable=True),
        sa.Column("reported_boot", sa.BigInteger(), nullable=True),
        sa.Column("reported_seq", sa.BigInteger(), nullable=True),
        sa.Column("reported_ms", sa.BigInteger(), nullable=True),
        sa.Column("applied_generation", sa.BigInteger(), nullable=False),
        sa.Column("profile", JSON, nullable=True),
        sa.Column("versions", JSON, nullable=False),
        sa.Column("clock_synced", sa.Boolean(), nullable=False),
        sa.Column("online", sa.Boolean(), nullable=False),
        sa.Column("presence_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["device"], ["device.id"], name="fk_twin_device"),
        sa.PrimaryKeyConstraint("device", name="pk_twin"),
    )
    op.create_table(
        "window",
        sa.Column("id", ID, nullable=False),
        sa.Column("device", sa.String(length=40), nullable=False),
        sa.Column("boot", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("model", sa.String(length=40), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("target", sa.String(length=40), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=8), nullable=False),
        sa.Column("edges", sa.String(length=64), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("duration_ms", sa.BigInteger(), nullable=False),
        sa.Column("clock_synced", sa.Boolean(), nullable=False),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("errors", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("dropped_rows", sa.BigInteger(), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["device"], ["device.id"], name="fk_window_device"),
        sa.PrimaryKeyConstraint("id", name="pk_window"),
        sa.UniqueConstraint("device", "boot", "seq", name="uq_window_device_boot_seq"),
    )
    op.create_index("ix_window_device_model_at", "window", ["device", "model", "at_ms"])
    op.create_index("ix_window_model_received", "window", ["model", "received_ms"])

    op.create_table(
        "job",
        sa.Column("id", ID, nullable=False),
        sa.Column("rollout", sa.String(length=40), nullable=False),
        sa.Column("device", sa.String(length=40), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("stage", sa.Integer(), nullable=False),
        sa.Column("artifact_id", ID, nullable=False),
        sa.Column("previous_artifact_id", ID, nullable=True),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("error_code", sa.String(length=80), nullable=False),
        sa.Column("error_detail", sa.Text(), nullable=False),
        sa.Column("dispatched_ms", sa.BigInteger(), nullable=True),
        sa.Column("finished_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["artifact_id"], ["artifact.id"], name="fk_job_artifact_id"),
        sa.ForeignKeyConstraint(["device"], ["device.id"], name="fk_job_device"),
        sa.ForeignKeyConstraint(["previous_artifact_id"], ["artifact.id"], name="fk_job_previous_artifact_id"),
        sa.ForeignKeyConstraint(["rollout"], ["rollout.id"], name="fk_job_rollout"),
        sa.PrimaryKeyConstraint("id", name="pk_job"),
        sa.UniqueConstraint("rollout", "device", name="uq_job_rollout_device"),
    )
    op.create_index("ix_job_device_state", "job", ["device", "state"])

    op.create_table(
        "verdict",
        sa.Column("id", ID, nullable=False),
        sa.Column("rollout", sa.String(length=40), nullable=False),
        sa.Column("stage", sa.Integer(), nullable=False),
        sa.Column("evaluation", sa.Integer(), nullable=False),
        sa.Column("gate", sa.String(length=40), nullable=False),
        sa.Column("decision", sa.String(length=8), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("numbers", JSON, nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["rollout"], ["rollout.id"], name="fk_verdict_rollout"),
        sa.PrimaryKeyConstraint("id", name="pk_verdict"),
        sa.UniqueConstraint("rollout", "stage", "evaluation", "gate", name="uq_verdict_rollout_stage_evaluation_gate"),
    )
    op.create_table(
        "wanted",
        sa.Column("device", sa.String(length=40), nullable=False),
        sa.Column("model", sa.String(length=40), nullable=False),
        sa.Column("artifact_id", ID, nullable=False),
        sa.Column("rollout", sa.String(length=40), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["artifact_id"], ["artifact.id"], name="fk_wanted_artifact_id"),
        sa.ForeignKeyConstraint(["device"], ["device.id"], name="fk_wanted_device"),
        sa.PrimaryKeyConstraint("device", "model", name="pk_wanted"),
    )
    for statement in AUDIT_GUARDS[op.get_bind().dialect.name]:
        op.execute(statement)


def downgrade() -> None:
    op.drop_table("wanted")
    op.drop_table("verdict")
    op.drop_index("ix_job_device_state", "job")
    op.drop_table("job")
    op.drop_index("ix_window_model_received", "window")
    op.drop_index("ix_window_device_model_at", "window")
    op.drop_table("window")
    op.drop_table("twin")
    op.drop_index("ix_rollout_state", "rollout")
    op.drop_index("ix_rollout_release_id", "rollout")
    op.drop_table("rollout")
    op.drop_index("ix_installed_version", "installed")
    op.drop_table("installed")
    op.drop_table("drift")
    op.drop_index("ix_artifact_release_id", "artifact")
    op.drop_table("artifact")
    op.drop_table("release")
    op.drop_table("meta")
    op.drop_index("ix_event_rollout", "event")
    op.drop_index("ix_event_device_received", "event")
    op.drop_table("event")
    op.drop_table("enrolment")
    op.drop_index("ix_device_certificate_serial", "device")
    op.drop_table("device")
    op.drop_index("ix_audit_at_ms", "audit")
    op.drop_table("audit")
    op.drop_table("api_token")
    op.drop_index("ix_alert_key_closed", "alert")
    op.drop_table("alert")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_refuse()")
