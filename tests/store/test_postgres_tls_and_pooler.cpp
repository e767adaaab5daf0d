// The two things that commonly stand between a node and its database: TLS, and a pooler that gives each
// transaction another connection.
#include <gmock/gmock.h>
#include <grp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "store/store_fixture.hpp"
#include "support/certificates.hpp"

namespace sluice::store {
namespace {

using testing_support::PrivatePostgres;

Commit put(const std::string& key) { return {.then = {KvPut{at(key), "v", 1}}}; }

class PostgresTls : public testing::Test {
 protected:
  StoreRig rig;
  testing_support::TempFolder folder;
  std::string write(const std::string& name, const std::string& text) {
    const std::string path = folder.file(name);
    std::ofstream(path) << text;
    // The server takes a key that its group may read only from root.
    ::chmod(path.c_str(), 0600);
    if (const group* g = ::getgrnam("postgres"); ::getuid() == 0 && g != nullptr && ::chown(path.c_str(), 0, g->gr_gid) == 0)
      ::chmod(path.c_str(), 0640);
    return path;
  }
  std::vector<std::string> settings(const test::MadeCertificate& certificate) {
    ::chmod(folder.path().c_str(), 0755);
    return {"ssl=on", "ssl_cert_file=" + write("server.pem", certificate.certificate), "ssl_key_file=" + write("server.key", certificate.key)};
  }
  Status open(PrivatePostgres& server, const std::string& how) {
    PostgresOptions o;
    o.url = "postgres://sluice@localhost:" + std::to_string(server.port()) + "/d?" + how;
    auto store = open_postgres_store(o, rig.real, rig.random, rig.executor);
    if (!store) return fail(store.error());
    const auto done = commit_and_wait(**store, put("a"));
    if (!done) return fail(done.error());
    return {};
  }
};

TEST_F(PostgresTls, NODE_1_a_server_is_believed_by_its_certificate_and_name_alone) {
  const auto own = test::make_certificate("localhost"), other = test::make_certificate("localhost");
  PrivatePostgres server(settings(own));
  server.sql("CREATE DATABASE d", "template1");
  EXPECT_TRUE(open(server, "sslmode=verify-full&sslrootcert=" + folder.file("server.pem")));
  // The server's own end of a session takes it a moment.
  const auto sessions = [&] { return server.sql("SELECT count(*) FROM pg_stat_ssl WHERE ssl", "d"); };
  for (int i = 0; i < 200 && sessions() != "0"; ++i) Parker().park(milliseconds(25));
  EXPECT_EQ(sessions(), "0") << "closed with the store";
  const auto stranger = open(server, "sslmode=verify-full&sslrootcert=" + write("other.pem", other.certificate));
  ASSERT_FALSE(stranger);
  EXPECT_EQ(stranger.error().code(), "database_tls") << stranger.error().to_string();
  EXPECT_TRUE(stranger.error().retryable()) << "it heals once the server has a certificate that fits";
  const auto unreadable = open(server, "sslmode=verify-full&sslrootcert=/none.pem");
  ASSERT_FALSE(unreadable);
  EXPECT_EQ(unreadable.error().code(), "database_tls") << unreadable.error().to_string();
}

TEST_F(PostgresTls, NODE_1_a_certificate_of_another_name_is_refused) {
  const auto wrong = test::make_certificate("elsewhere");
  PrivatePostgres server(settings(wrong));
  server.sql("CREATE DATABASE d", "template1");
  const auto refused = open(server, "sslmode=verify-full&sslrootcert=" + folder.file("server.pem"));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), "database_tls") << refused.error().to_string();
  EXPECT_TRUE(refused.error().detail().ends_with("the server's certificate and its name; start it again once they fit")) << refused.error().to_string();
  EXPECT_TRUE(open(server, "sslmode=verify-ca&sslrootcert=" + folder.file("server.pem")));
}

TEST_F(PostgresTls, NODE_1_a_server_without_tls_is_refused_when_it_is_asked_for) {
  auto& server = PrivatePostgres::shared();
  rig.postgres();
  const auto refused = open(server, "sslmode=require");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), "database_tls") << refused.error().to_string();
}

// pgbouncer with transaction pooling, two server connections for everybody.
class Pooler {
 public:
  Pooler(PrivatePostgres& server, const std::string& database) : port_(testing_support::free_port()) {
    ::chmod(folder_.path().c_str(), 0777);
    std::ofstream(folder_.file("users")) << "\"sluice\" \"\"\n";
    std::ofstream(folder_.file("ini")) << "[databases]\n" << database << " = host=" << server.folder() << "/pg port=" << server.port()
                                       << "\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = " << port_
                                       << "\nunix_socket_dir =\nauth_type = trust\nauth_file = " << folder_.file("users")
                                       << "\npool_mode = transaction\ndefault_pool_size = 2\nmax_client_conn = 100\n";
    const std::string log = folder_.file("log"), ini = folder_.file("ini");
    pid_ = fork();
    if (pid_ == 0) {
      const int fd = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0666);
      dup2(fd, 1);
      dup2(fd, 2);
      // It refuses to be root.
      if (const group* g = ::getgrnam("postgres"); ::getuid() == 0 && g != nullptr)
        execl("/usr/bin/setpriv", "setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "/usr/sbin/pgbouncer", ini.c_str(), nullptr);
      execl("/usr/sbin/pgbouncer", "pgbouncer", ini.c_str(), nullptr);
      _exit(127);
    }
  }
  ~Pooler() {
    ::kill(pid_, SIGINT);
    ::waitpid(pid_, nullptr, 0);
  }
  std::uint16_t port() const { return port_; }
  std::string log() const {
    std::ifstream in(folder_.file("log"));
    return {std::istreambuf_iterator<char>(in), {}};
  }

 private:
  testing_support::TempFolder folder_;
  std::uint16_t port_;
  pid_t pid_ = -1;
};

TEST(PostgresPooler, NODE_1_doctor_names_a_pooler_of_transactions_that_the_configuration_does_not) {
  if (::access("/usr/sbin/pgbouncer", X_OK) != 0) GTEST_SKIP() << "needs pgbouncer";
  StoreRig rig;
  auto& server = PrivatePostgres::shared();
  auto o = rig.postgres();
  const Pooler pooler(server, rig.database);
  const auto says = [&] {
    Result<std::vector<PostgresFinding>> all = fail(FailureKind::unavailable, "", "");
    for (int i = 0; i < 100 && !all; ++i) {
      all = examine_postgres(o, rig.real);
      if (!all) Parker().park(milliseconds(50));
    }
    std::vector<PostgresFinding::Level> levels;
    if (all)
      for (const auto& finding : *all)
        if (finding.what == "pooler") levels.push_back(finding.level);
    return levels;
  };
  using Level = PostgresFinding::Level;
  EXPECT_THAT(says(), testing::ElementsAre(Level::good)) << "none";
  o.url = server.tcp_url(rig.database, pooler.port());
  EXPECT_THAT(says(), testing::ElementsAre(Level::error));
  EXPECT_THAT(says(), testing::ElementsAre(Level::error)) << "as before: it leaves nothing there";
  o.pooled = true;
  EXPECT_THAT(says(), testing::ElementsAre(Level::good));
}

TEST(PostgresPooler, NODE_1_nodes_behind_a_pooler_of_transactions_share_a_hot_row_exactly) {
  if (::access("/usr/sbin/pgbouncer", X_OK) != 0) GTEST_SKIP() << "needs pgbouncer";
  StoreRig rig;
  auto& server = PrivatePostgres::shared();
  auto o = rig.postgres();
  o.clock = nullptr;
  o.pooled = true;
  Pooler pooler(server, rig.database);
  o.url = server.tcp_url(rig.database, pooler.port());
  Result<std::unique_ptr<PostgresStore>> one = fail(FailureKind::unavailable, "", "");
  for (int i = 0; i < 100 && !one; ++i) {
    one = open_postgres_store(o, rig.real, rig.random, rig.executor);
    if (!one) Parker().park(milliseconds(50));
  }
  ASSERT_TRUE(one) << one.error().to_string() << pooler.log();
  auto two = open_postgres_store(o, rig.real, rig.random, rig.executor);
  ASSERT_TRUE(two) << two.error().to_string() << pooler.log();
  ASSERT_TRUE(commit_and_wait(**one, {.then = {KvPut{at("stock"), "", 100}}}));
  std::atomic<int> sold{0};
  std::vector<Thread> buyers;
  for (auto* store : {one->get(), two->get()})
    for (int b = 0; b < 4; ++b)
      buyers.emplace_back("buyer", [&, store] {
        for (int i = 0; i < 20; ++i) {
          const auto outcome = commit_and_wait(*store, {.requires_ = {needs(KvAtLeast{at("stock"), 1}, "sold_out")}, .then = {KvAdd{at("stock"), -1}}});
          EXPECT_TRUE(outcome) << outcome.error().to_string();
          sold += outcome && outcome->applied ? 1 : 0;
        }
      });
  buyers.clear();
  EXPECT_EQ(sold, 100);
  const auto rows = ask_now(**two, GetRows{{at("stock")}});
  ASSERT_TRUE(rows) << rows.error().to_string();
  EXPECT_EQ(rows->at(0)->number, 0);
  EXPECT_TRUE((*one)->purge(std::chrono::hours(1), 10));
}

}  // namespace
}  // namespace sluice::store
