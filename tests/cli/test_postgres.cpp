// sluice migrate and doctor on a PostgreSQL, and a restore from a dump as the how-to says it.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <thread>

#include "cli/process.hpp"
#include "support/private_postgres.hpp"

namespace sluice::cli_test {
namespace {

using testing_support::PrivatePostgres;

class PostgresCommand : public testing::Test {
 protected:
  PrivatePostgres& server = PrivatePostgres::shared();
  testing_support::TempFolder folder;
  const std::string name = server.new_database();
  std::string url(const std::string& database) const { return server.socket_url(database); }
};

TEST_F(PostgresCommand, NODE_1_migrate_makes_the_schema_once_and_doctor_is_content) {
  const auto none = run(folder.path(), {"doctor", "--store", url(name)});
  EXPECT_EQ(none.status, 0) << "the first start makes it";
  EXPECT_NE(none.out.find("warning  schema                         none yet"), std::string::npos) << none.out << none.err;
  const auto missing = run(folder.path(), {"doctor", "--store", url(name)}, {{"SLUICE_STORE_MIGRATE", "false"}});
  EXPECT_EQ(missing.status, 1);
  EXPECT_NE(missing.out.find("run sluice migrate"), std::string::npos) << missing.out << missing.err;
  const auto made = run(folder.path(), {"migrate", "--store", url(name), "--json"});
  EXPECT_EQ(made.status, 0) << made.err;
  EXPECT_NE(made.out.find("\"from\":0"), std::string::npos) << made.out;
  const auto again = run(folder.path(), {"migrate", "--store", url(name)});
  EXPECT_NE(again.out.find("already"), std::string::npos) << again.out;
  const auto doctor = run(folder.path(), {"doctor", "--full", "--store", url(name)});
  EXPECT_EQ(doctor.status, 0) << doctor.out << doctor.err;
}

TEST_F(PostgresCommand, NODE_1_doctor_says_what_to_change_and_fails) {
  ASSERT_EQ(run(folder.path(), {"migrate", "--store", url(name)}).status, 0);
  server.sql("ALTER DATABASE " + name + " SET synchronous_commit = off", "template1");
  const auto warned = run(folder.path(), {"doctor", "--store", url(name)});
  EXPECT_EQ(warned.status, 0);
  EXPECT_NE(warned.out.find("warning  synchronous_commit"), std::string::npos) << warned.out;
  server.sql("INSERT INTO sluice.journal VALUES (5, 1, '')", name);
  const auto damaged = run(folder.path(), {"doctor", "--full", "--store", url(name)});
  EXPECT_EQ(damaged.status, 1);
  EXPECT_NE(damaged.out.find("journals with a gap"), std::string::npos) << damaged.out;
}

TEST_F(PostgresCommand, NODE_6_a_wrong_address_is_told_without_its_password) {
  const std::pair<const char*, const char*> verbs[] = {{"doctor", "ask again once"}, {"migrate", "run it again once"}};
  for (const auto& [verb, next] : verbs) {
    const auto ran = run(folder.path(), {verb, "--store", "postgres://u:hunter2@127.0.0.1:1/none"});
    EXPECT_EQ(ran.status, 1);
    EXPECT_EQ((ran.out + ran.err).find("hunter2"), std::string::npos) << ran.out << ran.err;
    EXPECT_NE(ran.err.find(std::string(next) + " the database answers"), std::string::npos) << ran.err;
  }
  EXPECT_NE(run(folder.path(), {"serve", "--listen", "0", "--store", "postgres://u@127.0.0.1:1/none"}).err.find("start it again once"), std::string::npos);
}

TEST_F(PostgresCommand, NODE_1_a_sqlite_file_of_which_nothing_is_in_the_postgres_is_told_at_the_start) {
  ASSERT_EQ(run(folder.path(), {"migrate", "--store", "sluice.db"}).status, 0);
  const auto told = [&] {
    std::ofstream(folder.file("server.err"), std::ios::trunc);
    Serving(folder.path(), {"--store", url(name)});
    const std::string log = read_file(folder.file("server.err")), words = "nothing of the SQLite file at store.path is in it";
    const auto at = log.find(words);
    return at == log.npos ? 0 : log.find(words, at + 1) == log.npos ? 1 : 2;
  };
  EXPECT_EQ(told(), 1);
  std::filesystem::remove(folder.file("sluice.db"));
  EXPECT_EQ(told(), 0);
}

TEST_F(PostgresCommand, NODE_8_who_sends_to_a_database_that_went_back_is_not_told_to_try_again) {
  const Serving node(folder.path(), {"--store", url(name)});
  const auto send = [&](const char* key) { return node.ask({"send", "kv.put", R"({"collection":"c","key":"k","value":1})", "--key", key}); };
  ASSERT_EQ(send("a").status, 0) << read_file(folder.file("server.err"));
  server.sql("UPDATE sluice.writers SET last = 0", name);  // as a restore to an earlier point leaves it
  Ran told;
  for (int turn = 0; turn < 20 && told.err.find("database_went_back") == told.err.npos; ++turn) told = send(std::to_string(turn).c_str());
  EXPECT_NE(told.err.find("database_went_back"), std::string::npos) << told.err;
  EXPECT_NE(told.err.find("do not start the server again before you know what was lost"), std::string::npos) << told.err;
  EXPECT_EQ(told.err.find("may be tried again"), std::string::npos) << told.err;
}

// What the page says is run as it stands there, with names of this test's own; the owner is no superuser.
class PostgresPage : public PostgresCommand {
 protected:
  const std::string owner = "owner_" + name, app = "app_" + name, copy = name + "_copy";
  void SetUp() override {
    server.sql("CREATE ROLE " + owner + " LOGIN", "template1");
    server.sql("ALTER DATABASE " + name + " OWNER TO " + owner, "template1");
  }
  std::string url_of(const std::string& role, const std::string& database) const {
    std::string text = url(database);
    return text.replace(text.find("sluice@"), 7, role + "@");
  }
  static std::string replaced(std::string text, const std::string& what, const std::string& with) {
    for (std::size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += with.size()) text.replace(at, what.size(), with);
    return text;
  }
  /// The blocks of code below a heading.
  std::vector<std::string> blocks(const std::string& heading) const {
    const std::string page = read_file(SLUICE_SOURCE_DIR "/docs/how-to/postgres.md");
    std::vector<std::string> found;
    const auto begin = page.find(heading);
    const auto end = std::min(page.find("\n#", begin + 1), page.size());
    for (std::size_t at = begin; (at = page.find("```", at)) < end;) {
      const auto from = page.find('\n', at) + 1, to = page.find("```", from);
      found.push_back(page.substr(from, to - from));
      at = to + 3;
    }
    return found;
  }
  int shell(std::string words) {
    words = replaced(words, "-O sluice", "-O " + owner);
    words = replaced(words, "--role=sluice", "--role=" + owner);
    words = replaced(words, "postgres://sluice@db.internal/orders2", "'" + url_of(owner, copy) + "'");
    words = replaced(words, " orders2", " " + copy);
    words = replaced(words, "-d orders ", "-d " + name + " ");
    const std::string file = folder.file("words.sh");
    std::ofstream(file) << "set -e\nexport PATH=" << folder.path() << ":$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1):$PATH\n"
                        << "export PGHOST=" << server.folder() << "/pg PGPORT=" << server.port() << " PGUSER=sluice\n"
                        << "ln -sf " << SLUICE_BINARY << " " << folder.path() << "/sluice\ncd " << folder.path() << "\n" << words;
    return std::system(("bash " + file + " >" + folder.file("said") + " 2>&1").c_str());
  }
};

TEST_F(PostgresPage, NODE_8_a_dump_is_restored_word_for_word_for_an_owner_who_is_no_superuser) {
  ASSERT_EQ(run(folder.path(), {"migrate", "--store", url_of(owner, name)}).status, 0);
  server.sql("INSERT INTO sluice.meta VALUES ('incarnation', 77); INSERT INTO sluice.kv VALUES ('a', 'b', 'c', 1, 42, 'v')", name);
  const auto words = blocks("## Backup and restore");
  ASSERT_EQ(words.size(), 2u);
  for (const auto& block : words) ASSERT_EQ(shell(block), 0) << block << read_file(folder.file("said"));
  EXPECT_EQ(std::filesystem::status(folder.file("orders.dump")).permissions(), std::filesystem::perms::owner_read | std::filesystem::perms::owner_write)
      << "replies and hashes of tokens are in it";
  EXPECT_NE(server.sql("SELECT value FROM sluice.meta WHERE name = 'incarnation'", copy), "77");
  EXPECT_EQ(server.sql("SELECT number FROM sluice.kv", copy), "42");
  const auto token = run(folder.path(), {"token", "create", "till", "--grant", "*:*", "--store", url_of(owner, copy)});
  EXPECT_EQ(token.status, 0) << "the owner works on it: " << token.err;
}

TEST_F(PostgresPage, NODE_8_a_dump_that_was_restored_without_saying_so_is_noticed) {
  const auto make = [&](const std::string& database, const char* token) {
    return run(folder.path(), {"token", "create", token, "--grant", "*:*", "--store", url_of(owner, database)});
  };
  ASSERT_EQ(make(name, "till").status, 0);
  const std::string drawn = "SELECT value FROM sluice.meta WHERE name = 'incarnation'", first = server.sql(drawn, name);
  const auto words = blocks("## Backup and restore");
  ASSERT_EQ(words.size(), 2u);
  for (const auto& line : {words[0], words[1].substr(0, words[1].find('\n'))}) ASSERT_EQ(shell(line), 0) << read_file(folder.file("said"));
  const auto doctor = [&] { return run(folder.path(), {"doctor", "--store", url_of(owner, copy)}).out; };
  EXPECT_NE(doctor().find("warning  database                       another one"), std::string::npos) << doctor();
  EXPECT_EQ(server.sql(drawn, copy), first) << "doctor changes nothing";
  Serving(folder.path(), {"--store", url_of(owner, copy)});
  EXPECT_NE(read_file(folder.file("server.err")).find("a new incarnation was drawn"), std::string::npos) << read_file(folder.file("server.err"));
  const auto second = server.sql(drawn, copy);
  EXPECT_NE(second, first);
  ASSERT_EQ(make(copy, "desk").status, 0);
  EXPECT_EQ(server.sql(drawn, copy), second);
  EXPECT_EQ(doctor().find("another one"), std::string::npos);
}

TEST_F(PostgresPage, NODE_1_servers_work_under_a_role_that_may_not_change_the_schema) {
  ASSERT_EQ(run(folder.path(), {"migrate", "--store", url_of(owner, name)}).status, 0);
  const Settings settings{{"SLUICE_STORE_MIGRATE", "false"}};
  server.sql("CREATE ROLE " + app + " LOGIN", name);
  const auto doctor = [&] { return run(folder.path(), {"doctor", "--full", "--store", url_of(app, name)}, settings); };
  const auto before = doctor();
  EXPECT_EQ(before.status, 1);
  const auto words = blocks("### Servers without the right");
  ASSERT_EQ(words.size(), 2u) << "the role by an administrator, the rights by the owner";
  server.sql("SET ROLE " + owner + "; " + replaced(words[1], "sluice_app", app), name);
  const auto granted = doctor();
  EXPECT_EQ(granted.status, 0) << granted.out << granted.err;
  EXPECT_EQ(granted.out.find("warning  right"), std::string::npos) << granted.out;
  const auto token = run(folder.path(), {"token", "create", "till", "--grant", "*:*", "--store", url_of(app, name)}, settings);
  EXPECT_EQ(token.status, 0) << token.err;
  server.sql("SET ROLE " + owner + "; CREATE TABLE sluice.later (a int)", name);
  EXPECT_EQ(doctor().status, 0) << "what a later version adds is granted too";
  server.sql("REVOKE INSERT ON sluice.keys FROM " + app, name);
  const auto revoked = doctor();
  EXPECT_EQ(revoked.status, 1);
  EXPECT_NE(revoked.out.find("INSERT on sluice.keys"), std::string::npos) << revoked.out;
  server.sql("REVOKE SELECT ON sluice.journal FROM " + app, name);
  const auto unread = doctor();
  EXPECT_NE(unread.out.find("error    integrity"), std::string::npos) << unread.out;
  EXPECT_EQ(unread.out.find("restore a backup"), std::string::npos) << "nothing is known to be damaged: " << unread.out;
}

TEST_F(PostgresCommand, NODE_1_nodes_that_start_first_together_all_serve_and_one_shows_the_token) {
  for (int round = 0; round < 4; ++round) {
    const std::string empty = server.new_database();
    std::unique_ptr<Serving> nodes[2];
    {
      std::vector<std::jthread> starts;
      for (auto& node : nodes)
        starts.emplace_back([&] { node = std::make_unique<Serving>(folder.path(), Arguments{"--store", url(empty)}); });
    }
    for (const auto& node : nodes) EXPECT_FALSE(node->address().empty()) << read_file(folder.file("server.err"));
    EXPECT_NE(nodes[0]->token().empty(), nodes[1]->token().empty()) << "one of them";
  }
}

TEST_F(PostgresCommand, NODE_1_doctor_joins_no_node_and_changes_nothing) {
  ASSERT_EQ(run(folder.path(), {"migrate", "--store", url(name)}).status, 0);
  // A dead node, which whoever joins adopts.
  server.sql("INSERT INTO sluice.writers VALUES (5, 1, 1, 1, 1, 1, 7, NULL)", name);
  const auto doctor = run(folder.path(), {"doctor", "--full", "--store", url(name)});
  EXPECT_EQ(doctor.status, 0) << doctor.out << doctor.err;
  EXPECT_EQ(server.sql("SELECT count(*) || ' ' || max(epoch) || ' ' || count(adopter) FROM sluice.writers", name), "1 1 0");
  EXPECT_EQ(server.sql("SELECT count(*) FROM sluice.meta WHERE name = 'incarnation'", name), "0");
}

TEST_F(PostgresCommand, CONSOLE_9_a_bench_does_not_fill_a_servers_database) {
  ASSERT_EQ(run(folder.path(), {"token", "create", "till", "--grant", "*:*", "--store", url(name)}).status, 0);
  const auto before = server.sql("SELECT count(*) FROM sluice.kv", name);
  for (const char* bench : {"durable", "growth", "idempotency", "nodes"}) {
    const auto refused = run(folder.path(), {"bench", bench, "--rounds", "1", "--seconds", "0.01", "--store", url(name)});
    EXPECT_EQ(refused.status, 2) << bench << refused.out << refused.err;
    EXPECT_NE(refused.err.find("it has tokens"), std::string::npos) << refused.err;
  }
  EXPECT_EQ(server.sql("SELECT count(*) FROM sluice.kv", name), before);
}

TEST_F(PostgresCommand, NODE_1_doctor_does_not_call_good_what_is_not) {
  ASSERT_EQ(run(folder.path(), {"migrate", "--store", url(name)}).status, 0);
  const auto says = [&](const std::string& line, const std::string& role = "sluice") {
    std::string address = url(name);
    const auto ran = run(folder.path(), {"doctor", "--store", address.replace(address.find("sluice@"), 7, role + "@")});
    EXPECT_NE(ran.out.find(line), std::string::npos) << line << "\n" << ran.out << ran.err;
  };
  server.sql("ALTER DATABASE " + name + " SET synchronous_commit = remote_write", "template1");
  says("warning  synchronous_commit");
  server.sql("ALTER DATABASE " + name + " SET synchronous_commit = local", "template1");  // nothing here may wait for a standby
  server.sql("ALTER DATABASE " + name + " SET default_transaction_isolation = serializable", "template1");
  says("warning  default_transaction_isolation");
  server.sql("CREATE ROLE few_" + name + " LOGIN CONNECTION LIMIT 2", name);
  says("warning  connections of the role        1 of 2", "few_" + name);
  server.sql("UPDATE sluice.meta SET value = 900 WHERE name = 'schema'", name);
  says("version 900");
  server.sql("UPDATE sluice.meta SET value = 899 WHERE name = 'suits'", name);
  says("the database is at 900, this binary knows 1");
  says("take a newer sluice");
  PrivatePostgres alone({"synchronous_standby_names=gone", "synchronous_commit=local"});
  const auto ran = run(folder.path(), {"doctor", "--store", alone.socket_url("template1")});
  EXPECT_EQ(ran.status, 1);
  EXPECT_NE(ran.out.find("error    synchronous_standby_names      gone; 0 of them stand"), std::string::npos) << ran.out;
}

}  // namespace
}  // namespace sluice::cli_test
